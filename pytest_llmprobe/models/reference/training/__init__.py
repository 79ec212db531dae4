"""How the reference model is made: `python -m pytest_llmprobe.models.reference.training`.

`tokenizer`; `circuit` and `model`, what it begins with; `data` and `retrieval`, what is said to it;
`stages`, `batches` and `training`, how it learns; `cells`, what its card measures.
"""
