"""What a person sees of a run: results, progress, errors."""
