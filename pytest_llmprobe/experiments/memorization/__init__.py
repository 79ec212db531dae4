"""What a model knows by heart, asked in four ways, and `known_texts` of the reference model.

Planted secrets (`canaries`), likelihoods (`membership`), windows of a corpus (`token_index`), and
the suffixes of a corpus: `prefix_map`, then `continuations`, scored by `extraction`.
"""
