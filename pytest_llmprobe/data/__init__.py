"""Texts and files: `sources` are what the user names, read by `rows`; `prose` makes some up.

`files` and `arrays` write so that a run that is killed loses nothing.
"""
