"""Summaries in French: `texts` draws what is to be summarised and says whether an answer is French.

`stories` makes texts with a known summary; `language` and `bert_encoder` find what answers are
judged with.
"""
