"""New answers for the prompts of a pool, by a model of the user's own."""
