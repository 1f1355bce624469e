"""Stops, temporary folders, DuckDB's guard, the progress protocol, calls to the hub."""
