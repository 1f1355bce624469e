"""The questions: views, the gap macro and named queries, as SQL files."""
