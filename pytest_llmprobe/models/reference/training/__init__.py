"""How the reference model is made: its tokenizer, its texts and its training."""
