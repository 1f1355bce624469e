"""Which scores are missing, their way to the corpus, and whether numbers are right."""
