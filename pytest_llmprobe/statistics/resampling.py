"""Intervals of what is a number of a whole sample, such as a score of all rows together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from pytest_llmprobe.statistics.intervals import Interval


def bootstrap_interval(
    statistic: Callable[[list[int]], float],
    clusters: Sequence[Hashable],
    seed: int = 0,
    resamples: int = 500,
) -> Interval | None:
    """Percentile interval (Efron and Tibshirani 1993, chapter 13) over resampled clusters.

    Args:
        statistic: Of the rows with these numbers; one may occur several times.
        clusters: What each row belongs to.
        seed: The same seed gives the same interval.
        resamples: How often ``statistic`` is asked.

    Returns:
        95 % bounds, or None if one cluster alone gives no spread.
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
    low, high = (float(bound) for bound in np.quantile(values, (0.025, 0.975)))
    return low, high
