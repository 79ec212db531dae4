"""Facts in prose: one needle in a text, and a question about it."""
