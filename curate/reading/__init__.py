"""Any source -> examples of one schema; the narrow dataset."""
