"""Any source to examples of one schema; the narrow set."""
