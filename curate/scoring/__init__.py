"""Scoring: what is missing, how it gets into the corpus, and whether the numbers are right."""
