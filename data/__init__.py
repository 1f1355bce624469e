"""The demo: models, examples and a narrow set."""
