"""How many tokens of an answer are left: `requests` in the wording of `words`.

`collection` asks them and writes hidden states through `files`; `data_set` opens and splits them;
`skill` judges a probe beside the `baselines`.
"""
