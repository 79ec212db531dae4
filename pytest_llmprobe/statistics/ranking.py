"""How well a score tells two groups apart: one that should score higher and one that should not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.statistics.intervals import Interval, wilson
from pytest_llmprobe.statistics.resampling import Floats, percentiles

Counts: TypeAlias = NDArray[np.int64]

FEW = 20
"""Scores of a group below which resamples of it do not show its spread."""

DRAWS_AT_ONCE = 2**21
"""Counts of resampled values that are held in memory together."""


def roc_auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The area under the ROC curve: P(positive > negative) + P(equal) / 2 (Mann-Whitney).

    Raises:
        CasesError: A group is empty or holds a NaN.
    """
    high, low = _sorted_scores(positive, negative)
    below = np.searchsorted(low, high, side="left") + np.searchsorted(low, high, side="right")
    return float(below.sum() / (2 * high.size * low.size))


def roc_auc_interval(
    positive: Sequence[float],
    negative: Sequence[float],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of the area under the ROC curve.

    Stratified: each group is resampled on its own, at its own size. Where the groups do not overlap
    at all, every resample says 1 (or 0), and the interval has no width: it then says nothing about
    how sure that is. The same scores and seed give the same interval. It lies above 0.5 for 2 to
    4 % of equal groups of 20 and more; for fewer see ``cautious_roc_auc_interval``.

    Raises:
        CasesError: A group is empty or holds a NaN.
    """
    high, low = _sorted_scores(positive, negative)
    high_values, high_counts = np.unique(high, return_counts=True)
    low_values, low_counts = np.unique(low, return_counts=True)
    below = np.searchsorted(low_values, high_values, side="left")
    not_above = np.searchsorted(low_values, high_values, side="right")
    rng = np.random.default_rng(seed)
    areas: list[Floats] = []
    at_once = max(1, DRAWS_AT_ONCE // (high_values.size + low_values.size))
    for first in range(0, resamples, at_once):
        n = min(at_once, resamples - first)
        drawn_high = rng.multinomial(high.size, high_counts / high.size, size=n)
        drawn_low = rng.multinomial(low.size, low_counts / low.size, size=n)
        lower = np.pad(drawn_low.cumsum(axis=1), ((0, 0), (1, 0)))  # (n, values + 1)
        wins = (drawn_high * (lower[:, below] + lower[:, not_above])).sum(axis=1)
        areas.append(wins / (2 * high.size * low.size))
    return percentiles(np.concatenate(areas), (1 - confidence) / 2)


def cautious_roc_auc_interval(positive: Sequence[float], negative: Sequence[float]) -> Interval:
    """The 95 % interval of the area; with few scores at least as wide as that of a rate.

    A group of fewer than ``FEW`` hardly shows its spread: there the interval also holds Wilson's of
    a rate of as many cases as the smaller group has, of which each pair is one at most.

    Raises:
        CasesError: A group is empty or holds a NaN.
    """
    found, fewest = roc_auc_interval(positive, negative), min(len(positive), len(negative))
    if fewest >= FEW:
        return found
    area = roc_auc(positive, negative)
    rate = wilson(area * fewest, fewest)
    return min(found[0], rate[0]), max(found[1], rate[1])


@dataclass(frozen=True)
class OperatingPoint:
    """Where a score is cut, and what the cut lets through.

    Args:
        threshold: Scores above it, not at it, are called positive.
        true_positive_rate: Share of the positive group above the threshold.
        interval: Of the true-positive rate.
        false_positive_rate: Share of the negative group above the threshold: at most the one asked
            for, and less if that is no multiple of 1 / n or there are ties.
    """

    threshold: float
    true_positive_rate: float
    interval: Interval
    false_positive_rate: float


def true_positive_rate(
    positive: Sequence[float],
    negative: Sequence[float],
    false_positive_rate: float = 0.01,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> OperatingPoint:
    """The share of positives found where at most a given share of negatives is called positive.

    The threshold is the lowest negative score with at most ``floor(rate * n)`` of the n negatives
    above it; nothing is interpolated. Scores at the threshold are called negative, so ties lower
    both rates. With fewer than 1 / rate negatives the threshold is the highest negative score: the
    rate is then the one without any false positive, and how many there would be is known only to
    about 3 / n (the rule of three). The threshold then depends on a single score; have several
    times 1 / rate negatives.

    The interval is the smallest that holds two others: that of the stratified bootstrap, which
    moves the threshold too, and the Wilson interval at the threshold found, without which a rate
    of 0 or 1 would have no width. The same scores and seed give the same interval.

    Raises:
        CasesError: A group is empty or holds a NaN.
        SettingsError: The rate is not from 0 to below 1.
    """
    if not 0 <= false_positive_rate < 1:
        raise SettingsError(f"a false-positive rate of {false_positive_rate!r}: use 0 to below 1")
    high, low = _sorted_scores(positive, negative)
    allowed = min(low.size - 1, math.floor(false_positive_rate * low.size + 1e-9))
    threshold = low[-1 - allowed]
    found = int(_above(high, threshold))
    rng = np.random.default_rng(seed)
    # The rank of the threshold among resampled negatives is that of an order statistic of uniform
    # numbers, which is beta distributed: no resample needs to be drawn out.
    ranks = low.size * rng.beta(low.size - allowed, allowed + 1, size=resamples)
    thresholds = low[np.minimum(ranks.astype(np.int64), low.size - 1)]
    rates = rng.binomial(high.size, _above(high, thresholds) / high.size) / high.size
    bootstrap = percentiles(rates, (1 - confidence) / 2)
    sampling = wilson(found, high.size, confidence)
    return OperatingPoint(
        threshold=float(threshold),
        true_positive_rate=found / high.size,
        interval=(min(bootstrap[0], sampling[0]), max(bootstrap[1], sampling[1])),
        false_positive_rate=int(_above(low, threshold)) / low.size,
    )


def _sorted_scores(positive: Sequence[float], negative: Sequence[float]) -> tuple[Floats, Floats]:
    high = np.sort(np.asarray(positive, dtype=np.float64))
    low = np.sort(np.asarray(negative, dtype=np.float64))
    if not high.size or not low.size or np.isnan(high).any() or np.isnan(low).any():
        raise CasesError(
            f"{high.size} positive and {low.size} negative scores: a ROC curve needs numbers, and "
            "no NaN, in both groups"
        )
    return high, low


def _above(ordered: Floats, threshold: Floats | np.float64) -> Counts | np.int64:
    """How many of the scores are above each threshold."""
    return ordered.size - np.searchsorted(ordered, threshold, side="right")
