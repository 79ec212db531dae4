"""How an experiment's answers ended and why its cases missed, counted for the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pytest_llmprobe.report.failures import OTHER
from pytest_llmprobe.report.record import Record, bounded

MAX_KINDS = 20
"""Kinds of failures, or of endings, that are counted apart."""

FIRST_MISSES = 3
"""Misses of an experiment that its entry of the report holds."""

MAX_SHOWN = 200
"""Characters of their texts."""

_TOLD_APART = 1_000  # kinds while records arrive


class Kinds:
    """Counts words of an open vocabulary and does not grow with it."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, word: str) -> None:
        """Count a word once more."""
        new = word not in self._counts and len(self._counts) >= _TOLD_APART
        self._counts[OTHER if new else word] += 1

    def counts(self) -> dict[str, int]:
        """How often each of the commonest words was said; the rest together as ``other``."""
        if len(self._counts) <= MAX_KINDS:
            return dict(self._counts)
        kept = dict(
            commonest({w: n for w, n in self._counts.items() if w != OTHER})[: MAX_KINDS - 1]
        )
        return kept | {OTHER: self._counts.total() - sum(kept.values())}


def commonest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Words with their counts, the commonest first, equally common ones by name."""
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))


class Endings:
    """How answers ended, and why cases missed."""

    def __init__(self) -> None:
        self._reasons, self._failures = Kinds(), Kinds()
        self._answers = self._cut = self._in_thought = 0
        self._tokens: list[int] = []
        self._misses: list[dict[str, Any]] = []

    def add(self, record: Record) -> None:
        """Count a case."""
        if record.finish_reason is not None:
            self._answers += 1
            self._reasons.add(record.finish_reason)
        if record.cut_off_at is not None:
            self._cut += 1
            self._in_thought += record.thought is not None and not (record.received or "").strip()
            ends = [*self._tokens, record.cut_off_at]
            self._tokens = [min(ends), max(ends)]
        if record.failure is not None:
            self._failures.add(record.failure)
            if len(self._misses) < FIRST_MISSES:
                self._misses.append(shown(record))

    def as_dict(self) -> dict[str, Any]:
        """For the report; see docs/report.md."""
        return {
            "finish_reasons": self._reasons.counts(),
            "cut_off": {
                "n": self._cut,
                "answers": self._answers,
                "tokens": self._tokens or None,
                "in_thought": self._in_thought,
            },
            "failures": self._failures.counts(),
            "first_misses": self._misses,
        }


def shown(record: Record) -> dict[str, Any]:
    """What a case was to answer, what it did, and why that is wrong, each text bounded."""
    wanted = record.expected
    texts = {
        "expected": wanted if wanted is None or isinstance(wanted, str) else json.dumps(wanted),
        "received": record.received,
        "explanation": record.explanation,
    }
    return {"id": record.id} | {key: bounded(text, MAX_SHOWN) for key, text in texts.items()}
