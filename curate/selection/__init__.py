"""Which ranked rows are taken."""
