"""Prefix maps: a few tokens of each document, and what truly follows them."""
