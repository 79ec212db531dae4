"""Perplexity of texts, per byte, word and token, and of a whole corpus.

As lm-evaluation-harness weighs them: sums over all texts are divided, not the texts' own values
averaged (``weighted_mean`` of its api/metrics.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytest_llmprobe.report.record import Record


@dataclass(frozen=True)
class TextLikelihood:
    """How likely a model finds a text.

    Args:
        log_likelihood: Natural logarithm of its probability.
        tokens: Its tokens; 0 if a server does not say.
        words: What white space separates.
        bytes: Of UTF-8.
    """

    log_likelihood: float
    tokens: int
    words: int
    bytes: int

    @classmethod
    def of(cls, text: str, log_likelihood: float, tokens: int) -> TextLikelihood:
        """Counted as lm-evaluation-harness counts: white space at an end adds an empty word."""
        return cls(log_likelihood, tokens, len(re.split(r"\s+", text)), len(text.encode()))

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


def corpus(records: Sequence[Record]) -> dict[str, Any]:
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


def _exp(value: float) -> float | None:
    """None for what no float holds: a model that knows nothing of a text of long words."""
    return math.exp(value) if value < 700 else None
