"""What an export writes: rows of a mix, files, manifest, tokens."""
