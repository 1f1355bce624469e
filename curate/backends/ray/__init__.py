"""Workers on other machines: actors of a Ray cluster, each with a backend of its own."""
