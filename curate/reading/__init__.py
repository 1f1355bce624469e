"""Raw rows: files, folders, globs, hub sets and filters; the formats and labels of rows."""
