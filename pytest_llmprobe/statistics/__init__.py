"""Intervals and tests; pure functions over plain numbers."""
