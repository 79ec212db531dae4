"""Summaries in French of English texts."""
