"""A tokenizer seen as a reader of plain texts, and what tells it from every other one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pytest_llmprobe.experiments.memorization.prefix_map.cutting import TextTokenizer


def tokenizer_hash(tokenizer: Any) -> str:
    """16 hex digits of a SHA-256 of what decides a transformers tokenizer's ids.

    Not of its padding and truncation, which a mere call changes. Of its special tokens by name,
    too: a chat template writes them.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        decides: Any = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    else:
        decides = json.loads(backend.to_str()) | {"padding": None, "truncation": None}
    special = getattr(tokenizer, "special_tokens_map", {})
    named = {name: str(token) for name, token in special.items() if name != "pad_token"}
    decides = [decides, named]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def text_tokenizer(tokenizer: Any) -> TextTokenizer:
    """What a prefix map needs of a transformers tokenizer."""

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def decode(ids: Sequence[int]) -> str:
        as_is = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return str(tokenizer.decode(list(ids), **as_is))

    plain, full = encode("a"), list(tokenizer("a")["input_ids"])
    starts = (at for at in range(len(full)) if plain and full[at : at + len(plain)] == plain)
    before = tuple(full[: next(starts, 0)])
    return TextTokenizer(encode, decode, tokenizer_hash(tokenizer), before)
