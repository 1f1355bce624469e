"""A scored folder: its views, its one writer, queries and integrity."""
