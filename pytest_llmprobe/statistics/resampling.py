"""Intervals of what is a number of a whole sample, such as a score of all rows together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pytest_llmprobe.statistics.intervals import Interval

Floats: TypeAlias = NDArray[np.float64]


def percentiles(values: Floats, tail: float = 0.025) -> Interval:
    """What leaves ``tail`` of resampled values out at each end (Efron and Tibshirani 1993, 13)."""
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_interval(
    statistic: Callable[[list[int]], float],
    clusters: Sequence[Hashable],
    seed: int = 0,
    resamples: int = 500,
) -> Interval | None:
    """95 % percentile interval over resampled clusters; None if one alone gives no spread.

    Args:
        statistic: Of the rows with these numbers; one may occur several times.
        clusters: What each row belongs to.
        seed: The same seed gives the same interval.
        resamples: How often ``statistic`` is asked.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for number, cluster in enumerate(clusters):
        members[cluster].append(number)
    groups = list(members.values())
    if len(groups) < 2:
        return None
    random = np.random.default_rng(seed)
    values = [
        statistic([number for group in drawn for number in groups[group]])
        for drawn in random.integers(len(groups), size=(resamples, len(groups)))
    ]
    return percentiles(np.array(values))
