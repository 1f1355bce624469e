"""Messages to token ids and the answer's span."""
