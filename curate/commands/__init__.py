"""The commands: arguments and help texts; each is one call into `curate`."""
