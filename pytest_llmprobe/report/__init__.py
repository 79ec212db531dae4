"""Records, run files, summaries, gates and their words for a terminal; no torch, no pytest."""
