"""Prefix maps: a few tokens of each document, and what truly follows them.

`cutting` makes one from a corpus with `writer`; `files` reads it and describes its folder.
"""
