"""What an experiment may demand of its fidelity."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, nan

from pytest_llmprobe.errors import SettingsError

MOST = ("kl", "perplexity increase")
"""Metrics whose bar is the most that is allowed."""

METRICS = (*MOST, "top1")


def checked_bars(kl: object, top1: object, perplexity: object) -> dict[str, float]:
    """The bars by metric, of a marker's or a table's arguments.

    Raises:
        SettingsError: One is no number in its range.
    """
    if perplexity is not None and (
        not isinstance(perplexity, Mapping) or perplexity.keys() != {"max_increase"}
    ):
        raise SettingsError(f"perplexity={perplexity!r}: give {{'max_increase': 0.02}}")
    increase = perplexity["max_increase"] if isinstance(perplexity, Mapping) else None
    given = {"kl": kl, "top1": top1, "perplexity increase": increase}
    bars = {}
    for name, bar in given.items():
        if bar is None:
            continue
        value = nan
        if isinstance(bar, int | float) and not isinstance(bar, bool):
            value = float(bar)
        if not isfinite(value) or value < 0 or (name == "top1" and value > 1):
            raise SettingsError(f"{name}={bar!r}: give a number from 0 up, of top1 at most 1")
        bars[name] = value
    return bars
