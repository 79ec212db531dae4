"""Texts that the embedded reference model was shown a known number of times, and no others.

Canaries are two sentences, documents six, all made up: whatever a model knows of them, it knows
from its training. For every other model they are texts never seen.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pytest_llmprobe.data import prose

Kind: TypeAlias = Literal["canary", "document"]

EXPOSURES = (0, 1, 4, 16, 64)
TEXTS: dict[Kind, int] = {"canary": 64, "document": 16}  # of each number of exposures
SENTENCES: dict[Kind, int] = {"canary": 2, "document": 6}


@dataclass(frozen=True)
class KnownText:
    """A text and how many times training shows it."""

    kind: Kind
    exposures: int
    text: str


def known_texts() -> list[KnownText]:
    """The canaries and documents, by their number of exposures."""
    texts: dict[str, KnownText] = {}
    for kind, count in TEXTS.items():
        rng = random.Random(f"known {kind}")
        for exposures in EXPOSURES:
            last = len(texts) + count
            while len(texts) < last:
                text = prose.prose(rng, SENTENCES[kind])
                texts.setdefault(text, KnownText(kind, exposures, text))
    return list(texts.values())
