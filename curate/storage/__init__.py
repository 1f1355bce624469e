"""The corpus folder's columns, files, manifest, lock, writer and views."""
