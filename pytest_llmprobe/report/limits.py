"""Between what a score must be, and by how much it may change against a baseline."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Literal, TypeAlias, TypeGuard

from pytest_llmprobe.errors import SettingsError

Kind: TypeAlias = Literal["min", "max", "max_drop", "max_increase"]

TIMINGS = {"latency_p50": "p50_s", "latency_p95": "p95_s", "tokens_per_s": "tokens_per_s"}
"""Scores that every experiment has: where its timings in the report keep them."""

SPEEDS = {
    "answer_s",
    "decode_tokens_per_s",
    "first_token_s",
    "peak_memory_mib",
    "prefill_tokens_per_s",
}
"""Scores of cases that are the machine's, too: compared on the same one alone."""

LOWER_IS_BETTER = {
    "answer_s",
    "bits_per_byte",
    "cer",
    "cross_entropy",
    "edit_distance",
    "first_token_s",
    "kl",
    "latency_p50",
    "latency_p95",
    "levenshtein",
    "loss",
    "nll",
    "normalised_levenshtein",
    "peak_memory_mib",
    "perplexity",
    "wer",
}
"""Scores for which a bare number is the highest that may be; for any other it is the lowest."""


@dataclass(frozen=True)
class Limits:
    """Between what the mean of a score must be.

    Args:
        min: The lowest mean.
        max: The highest mean.
        max_drop: By how much it may be below the baseline's: in the score's own unit, or as a part
            of the baseline's mean (``"1%"``).
        max_increase: By how much it may be above the baseline's.
    """

    min: float | None = None
    max: float | None = None
    max_drop: float | str | None = None
    max_increase: float | str | None = None

    def __post_init__(self) -> None:
        given = {kind: limit for kind, limit in vars(self).items() if limit is not None}
        if not given:
            raise SettingsError(f"give one of {', '.join(f.name for f in fields(self))}")
        for kind, limit in given.items():
            if kind.startswith("max_") and amount(limit)[0] < 0:
                raise SettingsError(f"{kind}={limit!r} is below 0: say by how much it may change")
            if not kind.startswith("max_") and not is_number(limit):
                raise SettingsError(f"{kind}={limit!r} is no number")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise SettingsError(f"min={self.min:g} is above max={self.max:g}: nothing is between")

    @classmethod
    def of(cls, name: str, given: object) -> Limits:
        """From what a marker or a table says of a score: a number, or limits by name."""
        if isinstance(given, Limits):
            return given
        if not isinstance(given, Mapping):
            if not is_number(given):
                raise SettingsError(f"{name}={given!r}: the bar is no number, and no table")
            given = {"max" if name in LOWER_IS_BETTER else "min": given}
        refuse_unknown(given, [f.name for f in fields(cls)], name)
        try:
            limits = cls(**given)
        except SettingsError as error:
            raise SettingsError(f"{name}: {error}") from None
        if name in TIMINGS:
            limits._refuse_for_timing(name)
        return limits

    def _refuse_for_timing(self, name: str) -> None:
        """A time and a speed are above 0: no value is below such a limit, or every one beyond."""
        for kind, limit in self.alone:
            if limit <= 0:
                raise SettingsError(f"{name}: {kind}={limit:g} is not above 0, as each {name} is")
        drop, is_part = amount(self.max_drop or 0)
        if is_part and drop >= 1:
            raise SettingsError(f"{name}: no {name} falls by more than {self.max_drop}")

    @property
    def alone(self) -> list[tuple[Kind, float]]:
        """The limits that a run can be held against by itself."""
        both: list[tuple[Kind, float | None]] = [("min", self.min), ("max", self.max)]
        return [(kind, limit) for kind, limit in both if limit is not None]

    @property
    def against_baseline(self) -> list[tuple[Kind, float | str]]:
        """The limits of a change."""
        both: list[tuple[Kind, float | str | None]] = [
            ("max_drop", self.max_drop),
            ("max_increase", self.max_increase),
        ]
        return [(kind, limit) for kind, limit in both if limit is not None]


def amount(change: object) -> tuple[float, bool]:
    """A change that is allowed, and whether it is a part of the value that changes.

    Raises:
        SettingsError: It is neither a number nor a percentage.
    """
    if is_number(change):
        return float(change), False
    if isinstance(change, str) and change.endswith("%"):
        try:
            part = float(change[:-1]) / 100
        except ValueError:
            part = float("nan")
        if isfinite(part):
            return part, True
    raise SettingsError(f"{change!r} is no change: give a number such as 0.02, or a part as '2%'")


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def refuse_unknown(given: Mapping[str, Any], known: list[str], where: str) -> None:
    """Refuse what no bar says, with the close name.

    Raises:
        SettingsError: Begins with ``where``.
    """
    for name in sorted(map(str, given.keys() - set(known))):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise SettingsError(f"{where}: unknown {name!r}; {hint}known: {', '.join(known)}")
