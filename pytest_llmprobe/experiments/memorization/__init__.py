"""What a model knows by heart of its training data."""
