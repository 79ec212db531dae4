"""A needle in prose: `text_needle` makes facts, hides them in a text and reads the answer."""
