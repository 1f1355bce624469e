"""Selected rows to files and a manifest, alone or mixed into a narrow dataset."""
