"""Selected rows to files and a manifest, alone or among the narrow set's."""
