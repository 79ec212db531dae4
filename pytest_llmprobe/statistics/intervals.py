"""Confidence intervals for pass rates and mean scores, with and without clusters."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import NormalDist, fmean
from typing import TypeAlias

Interval: TypeAlias = tuple[float, float]


def wilson(passed: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a rate (Wilson 1927, JASA 22:209).

    Args:
        passed: Successes, between 0 and ``n``; need not be whole (effective sample sizes).
        n: Trials, above 0.
        confidence: Two-sided coverage, between 0 and 1, here as in every interval.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = passed / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if passed == 0 else max(0.0, centre - half)
    high = 1.0 if passed == n else min(1.0, centre + half)
    return low, high


def clustered_standard_error(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Standard error of a mean when values of one cluster are not independent.

    The sum of residuals is taken per cluster before squaring (Miller 2024, "Adding Error Bars to
    Evals", arXiv 2411.00640, section 2.2), times G / (G - 1) for G clusters. With a cluster of
    its own for each value this is the ordinary standard error; for a single cluster, which says
    nothing about spread, it is infinite.
    """
    mean = fmean(values)
    residuals: dict[Hashable, float] = defaultdict(float)
    for value, cluster in zip(values, clusters, strict=True):
        residuals[cluster] += value - mean
    groups = len(residuals)
    if groups < 2:
        return math.inf
    squares = sum(residual * residual for residual in residuals.values())
    return math.sqrt(squares * groups / (groups - 1)) / len(values)


def rate_interval(
    passed: Sequence[bool], clusters: Sequence[Hashable], confidence: float = 0.95
) -> Interval:
    """Wilson interval of a pass rate on the effective number of cases.

    The clustered standard error gives the number of independent cases that would be as certain;
    it is never taken larger than the number of cases. A rate of 0 or 1 has no spread to measure,
    so there the number of clusters counts.

    Args:
        passed: One outcome per case, at least one.
        clusters: What each case belongs to (its haystack, its document).
        confidence: Two-sided coverage.
    """
    n = len(passed)
    rate = sum(passed) / n
    groups = len(set(clusters))
    if groups == n:
        effective = float(n)
    elif rate in (0.0, 1.0):
        effective = float(groups)
    else:
        error = clustered_standard_error([float(p) for p in passed], clusters)
        effective = min(float(n), max(1.0, rate * (1 - rate) / error**2 if error else n))
    return wilson(rate * effective, effective, confidence)


def mean_interval(
    values: Sequence[float], clusters: Sequence[Hashable], confidence: float = 0.95
) -> Interval | None:
    """Interval of a mean score: Wilson for scores of 0 and 1, else clustered normal.

    Takes what ``rate_interval`` takes; None if one cluster alone gives no spread.
    """
    if all(value in (0.0, 1.0) for value in values):
        return rate_interval([value == 1.0 for value in values], clusters, confidence)
    error = clustered_standard_error(values, clusters)
    if math.isinf(error):
        return None
    half = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return fmean(values) - half, fmean(values) + half
