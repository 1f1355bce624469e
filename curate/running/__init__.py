"""How a run of scoring goes: models opened, sources taken in, windows scored, stops."""
