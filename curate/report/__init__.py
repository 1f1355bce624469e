"""A report on a scored corpus: one HTML file that opens offline, and its charts as pictures."""
