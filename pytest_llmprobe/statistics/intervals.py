"""Confidence intervals for pass rates and mean scores, with and without clusters."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from statistics import NormalDist, fmean
from typing import TypeAlias

from pytest_llmprobe.statistics.student import t_quantile

Interval: TypeAlias = tuple[float, float]


def wilson(passed: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a rate (Wilson 1927, JASA 22:209).

    Args:
        passed: Successes, between 0 and ``n``; need not be whole (effective sample sizes).
        n: Trials, above 0.
        confidence: Two-sided coverage, between 0 and 1, here as in every interval.
    """
    return score_interval(passed, n, NormalDist().inv_cdf((1 + confidence) / 2))


def score_interval(passed: float, n: float, z: float) -> Interval:
    """The rates that the score test at ``z`` standard errors does not reject; else as `wilson`."""
    rate = passed / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if rate == 0 else max(0.0, centre - half)
    high = 1.0 if rate == 1 else min(1.0, centre + half)
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


def effective_size(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[float, float]:
    """How many independent values are as certain, and by how many clusters that is known.

    The clustered standard error gives the correlation inside clusters. Few clusters show it badly,
    and cannot show a cluster that is unlike all that were seen: so it is drawn halfway to 1, where
    each cluster counts as one value, with the weight of as many clusters as there are. (In
    simulation anything less leaves rates of .05 out of the interval; tests/benchmarks.) Values that
    are all equal show nothing, and a cluster counts as one value. The clusters are counted as Kish
    does (Survey Sampling 1965): n^2 over the sum of squared sizes.

    Returns:
        Both n if no value shares a cluster; (n, 1) for one cluster, which tells nothing of others.
    """
    sizes = Counter(clusters).values()
    n = len(values)
    squares = sum(size * size for size in sizes)
    if squares == n or len(sizes) == 1:
        return float(n), n * n / squares
    alone = clustered_standard_error(values, range(n)) ** 2
    together = clustered_standard_error(values, clusters) ** 2
    most = squares / n - 1  # by how much clusters that agree wholly raise the variance
    shown = min(1.0, max(0.0, (together / alone - 1) / most)) if alone else 1.0
    kish = n * n / squares
    correlation = ((kish - 1) * shown + kish) / (2 * kish - 1)
    return n / (1 + correlation * most), kish


def quantile_for(kish: float, n: int, confidence: float) -> float:
    """Standard errors on either side: the normal quantile, or Student's where few clusters count.

    Its degrees of freedom are the clusters and 1, as half of what the standard error is made of is
    no estimate; see `effective_size`.
    """
    probability = (1 + confidence) / 2
    if kish >= n or kish == 1:
        return NormalDist().inv_cdf(probability)
    return t_quantile(probability, kish + 1)


def rate_interval(
    passed: Sequence[bool], clusters: Sequence[Hashable], confidence: float = 0.95
) -> Interval:
    """Wilson interval of a pass rate on the effective number of cases, with Student's quantile.

    Where no case shares a cluster, and where all share one, it is Wilson's own: one cluster alone
    says nothing of how others would differ, and whoever shows the interval says so.

    Args:
        passed: One outcome per case, at least one.
        clusters: What each case belongs to (its haystack, its document).
        confidence: Two-sided coverage.
    """
    effective, kish = effective_size([float(p) for p in passed], clusters)
    rate = sum(passed) / len(passed)
    z = quantile_for(kish, len(passed), confidence)
    return score_interval(rate * effective, effective, z)


def mean_interval(
    values: Sequence[float], clusters: Sequence[Hashable], confidence: float = 0.95
) -> Interval | None:
    """Interval of a mean score: that of a rate for scores of 0 and 1, else clustered Student's t.

    Takes what ``rate_interval`` takes; None if one cluster alone gives no spread.
    """
    if all(value in (0.0, 1.0) for value in values):
        return rate_interval([value == 1.0 for value in values], clusters, confidence)
    error = clustered_standard_error(values, clusters)
    if math.isinf(error):
        return None
    half = t_quantile((1 + confidence) / 2, len(set(clusters)) - 1) * error
    return fmean(values) - half, fmean(values) + half
