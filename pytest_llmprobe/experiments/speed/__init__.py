"""How fast a model answers: prompts of a length, and what is told of a round."""
