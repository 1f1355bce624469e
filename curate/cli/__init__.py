"""The command line: arguments, help, tables and progress; each command is one call."""
