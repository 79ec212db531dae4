"""Answers of a known length, and what hidden states know of it."""
