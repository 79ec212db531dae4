"""Intervals of a ratio of sums, such as nats a token or bits a byte, over clustered cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from math import sqrt

from pytest_llmprobe.statistics.intervals import Interval
from pytest_llmprobe.statistics.student import t_quantile


def ratio_interval(
    sums: Sequence[float],
    counts: Sequence[float],
    clusters: Sequence[Hashable],
    confidence: float = 0.95,
) -> Interval | None:
    """Interval of sum(sums) / sum(counts), where cases of one cluster are not independent.

    By linearisation (Cochran 1977, Sampling Techniques, 6.4; clusters as in Miller 2024, arXiv
    2411.00640): the residuals sum - ratio * count are added up by cluster before they are squared,
    times G / (G - 1) for G clusters, with Student's quantile of G - 1 degrees of freedom.

    Args:
        sums: Of each case, such as the nats of its tokens.
        counts: Of each case, such as its tokens; above 0 together.
        clusters: What each case belongs to.
        confidence: Two-sided coverage.

    Returns:
        Both ends, or None if one cluster alone gives no spread.
    """
    total = sum(counts)
    ratio = sum(sums) / total
    residuals: dict[Hashable, float] = defaultdict(float)
    for value, count, cluster in zip(sums, counts, clusters, strict=True):
        residuals[cluster] += value - ratio * count
    groups = len(residuals)
    if groups < 2:
        return None
    squares = sum(residual * residual for residual in residuals.values())
    error = sqrt(squares * groups / (groups - 1)) / total
    half = t_quantile((1 + confidence) / 2, groups - 1) * error
    return ratio - half, ratio + half
