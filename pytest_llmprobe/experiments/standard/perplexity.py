"""Perplexity of texts, per byte, word and token, and of a whole corpus.

As lm-evaluation-harness weighs them: sums over all texts are divided, not the texts' own values
averaged (``weighted_mean`` of its api/metrics.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Scored(Protocol):
    """What the summaries read of a record."""

    @property
    def scores(self) -> Mapping[str, float]:
        """Its measurements by name."""


@dataclass(frozen=True)
class TextLikelihood:
    """How likely a model finds a text.

    Args:
        log_likelihood: Natural logarithm of its probability.
        tokens: Its tokens; 0 if a server does not say.
        words: What white space separates.
        bytes: Of UTF-8.
        most_likely: Whether greedy decoding would have said it.
    """

    log_likelihood: float
    tokens: int
    words: int
    bytes: int
    most_likely: bool

    @classmethod
    def of(cls, text: str, log_likelihood: float, tokens: int, most_likely: bool) -> TextLikelihood:
        """Counted as lm-evaluation-harness counts: white space at an end adds an empty word."""
        words, size = len(re.split(r"\s+", text)), len(text.encode())
        return cls(log_likelihood, tokens, words, size, most_likely)

    @property
    def bits_per_byte(self) -> float:
        """Information in a byte of the text: the smaller, the better it is predicted."""
        return -self.log_likelihood / self.bytes / math.log(2)

    @property
    def scores(self) -> dict[str, float]:
        """What a record keeps of it: what ``corpus`` adds up, and the rate."""
        return {
            "bits_per_byte": self.bits_per_byte,
            "log_likelihood": self.log_likelihood,
            "tokens": float(self.tokens),
            "words": float(self.words),
            "bytes": float(self.bytes),
        }


def corpus(records: Sequence[Scored]) -> dict[str, Any]:
    """Bits per byte and perplexities of all texts together, for an experiment's summary."""
    measured = [record.scores for record in records if "bits_per_byte" in record.scores]
    if not measured:
        return {}
    total = {name: math.fsum(scores[name] for scores in measured) for name in measured[0]}
    nats = -total["log_likelihood"]
    found = {
        "bits_per_byte": nats / total["bytes"] / math.log(2),
        "byte_perplexity": math.exp(nats / total["bytes"]),
        "word_perplexity": _exp(nats / total["words"]),
        "texts": len(measured),
    }
    if total["tokens"]:
        found["token_perplexity"] = _exp(nats / total["tokens"])
    return found


def last_words(records: Sequence[Scored]) -> dict[str, Any]:
    """The perplexity of a target, each counting the same, as LAMBADA has it."""
    values = [r.scores["log_likelihood"] for r in records if "log_likelihood" in r.scores]
    return {"perplexity": _exp(-math.fsum(values) / len(values))} if values else {}


def _exp(value: float) -> float | None:
    """None for what no float holds: a model that knows nothing of a text of long words."""
    return math.exp(value) if value < 700 else None
