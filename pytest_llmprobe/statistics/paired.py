"""Two runs on the same cases: tests of flipped outcomes and of scores, and what they can find."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from pytest_llmprobe.statistics.intervals import (
    Interval,
    clustered_standard_error,
    effective_size,
    quantile_for,
)
from pytest_llmprobe.statistics.resampling import Floats, percentiles

EXACT_CLUSTERS = 14
"""Up to so many clusters with a difference all 2^G signs are tried; above, a sample of them."""

TIE = 1e-9
"""Sums of scores that are closer than this part of their size are equal up to rounding."""


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided McNemar test: are flips in one direction more frequent than in the other?

    The binomial test of ``lost`` in ``lost + gained`` at 1/2 (McNemar 1947, Psychometrika 12:153,
    with the exact distribution in place of chi-square; no mid-p, so the false-alarm rate is never
    above the level). The p-value is 0 only where it is below the smallest float.
    """
    flips, fewer = lost + gained, min(lost, gained)
    ways = total = 1
    for chosen in range(fewer):
        ways = ways * (flips - chosen) // (chosen + 1)
        total += ways
    return min(1.0, 2 * total / (1 << flips))


def clustered_mcnemar(changes: Sequence[int], clusters: Sequence[Hashable]) -> float:
    """Exact McNemar test on effective flips, for cases of one cluster that may flip together.

    Counts are divided by the design effect that the clusters show (Rao and Scott 1992, Biometrics
    48:577), the flips rounded down and the rarer of them up. With a cluster of its own for each
    case this is ``mcnemar``; one cluster alone shows nothing. A test by signs of whole clusters
    would be exact, but finds nothing at all in the few haystacks of a small suite.

    Args:
        changes: -1 for a lost case, +1 for a gained one, 0 for an unchanged one.
        clusters: What each case belongs to (its haystack, its document).
    """
    flips = sum(map(abs, changes))
    fewer = min(changes.count(-1), changes.count(1))
    effective = math.floor(flips * effective_pairs(changes, clusters) / len(changes) + TIE)
    rare = math.ceil(fewer * effective / flips - TIE) if flips else 0
    return mcnemar(rare, effective - rare)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979, Scandinavian Journal of Statistics 6:65).

    Rejecting what is below a level after it keeps the chance of any false alarm below that level.
    """
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def change_interval(
    changes: Sequence[int],
    clusters: Sequence[Hashable],
    confidence: float = 0.95,
    noise: float = 0.0,
) -> Interval:
    """Interval of the second pass rate minus the first on the same cases, within [-1, 1].

    Adjusted Wald interval (Bonett and Price 2012, Journal of Educational and Behavioral Statistics
    37:479): one more case lost and one more gained, so it has a width even where nothing flipped.
    Clustered cases count as in ``rate_interval``, with Student's quantile. Takes what
    ``clustered_mcnemar`` takes.

    Args:
        changes: For each case.
        clusters: For each case.
        confidence: Two-sided coverage.
        noise: Standard deviation of a pass rate from run to run; the variances of both runs add.
    """
    effective, kish = effective_size(changes, clusters)
    lost = (changes.count(-1) * effective / len(changes) + 1) / (effective + 2)
    gained = (changes.count(1) * effective / len(changes) + 1) / (effective + 2)
    variance = (lost + gained - (gained - lost) ** 2) / (effective + 2) + 2 * noise**2
    half = quantile_for(kish, len(changes), confidence) * math.sqrt(variance)
    return max(-1.0, gained - lost - half), min(1.0, gained - lost + half)


def recovery_interval(
    before: Sequence[bool],
    after: Sequence[bool],
    clusters: Sequence[Hashable],
    confidence: float = 0.95,
    noise: float = 0.0,
) -> Interval | None:
    """Interval of the second pass rate over the first on the same cases.

    The ratios r that a test of the mean of ``after - r before`` does not reject (Fieller 1954,
    Journal of the Royal Statistical Society B 16:175), on the effective number of pairs and with
    one more case lost and one more gained, as in ``change_interval``.

    Returns:
        None if the first rate cannot be told from 0, so that the ratio could be any.
    """
    n = len(before)
    changes = [now - then for then, now in zip(before, after, strict=True)]
    effective, kish = effective_size(changes, clusters)
    kept = sum(then and now for then, now in zip(before, after, strict=True)) * effective / n
    lost, gained = (changes.count(flip) * effective / n + 1 for flip in (-1, 1))
    size = effective + 2
    first, second, both = (kept + lost) / size, (kept + gained) / size, kept / size
    squared = quantile_for(kish, n, confidence) ** 2
    # (second - r first)^2 <= squared (variance of second - 2 r covariance + r^2 variance of first)
    variances = [rate * (1 - rate) / size + noise**2 for rate in (first, second)]
    covariance = (both - first * second) / size
    a = first**2 - squared * variances[0]
    b = first * second - squared * covariance
    c = second**2 - squared * variances[1]
    if a <= 0:
        return None
    root = math.sqrt(max(0.0, b * b - a * c))
    return max(0.0, (b - root) / a), (b + root) / a


def effective_pairs(changes: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """How many independent pairs would make the mean change as certain; never more than there are.

    Where nothing changed there is no spread to measure, so there the clusters count.
    """
    n, groups = len(changes), len(set(clusters))
    if groups in (1, n) or not any(changes):
        return float(groups)
    alone = clustered_standard_error(changes, range(n))
    together = clustered_standard_error(changes, clusters)
    return n * min(1.0, (alone / together) ** 2 if together > TIE * alone else 1.0)


@dataclass(frozen=True)
class ScoreChange:
    """How a score differs between two runs: second minus first, on ``n`` pairs that both have it.

    ``ci95`` is None if one cluster alone gives no spread.
    """

    n: int
    mean: float
    ci95: Interval | None
    p: float


def score_change(
    differences: Sequence[float],
    clusters: Sequence[Hashable],
    seed: int = 0,
    resamples: int = 9_999,
) -> ScoreChange:
    """Paired bootstrap of a score's difference, and a test of it.

    The interval is the percentile interval of the mean over resampled clusters, so pairs of one
    cluster stay together. The p-value is that of Fisher's randomisation test (The Design of
    Experiments 1935, section 21): if the models are alike, the sign of each cluster's sum is a fair
    coin. A bootstrap of few clusters would give false alarms. Up to ``EXACT_CLUSTERS`` clusters it
    is exact, above (1 + as extreme) / (1 + resamples) (Phipson and Smyth 2010).

    The differences are second score minus first, for at least one pair. The same ones and the same
    seed give the same result, whatever their order.
    """
    parts = sorted(_cluster_sums(differences, clusters).values())
    sums, counts = (np.array(column, dtype=float) for column in zip(*parts, strict=True))
    mean = fmean(differences)
    if len(sums) < 2:
        return ScoreChange(len(differences), mean, None, 1.0)
    if not any(differences):  # most often no case changed
        return ScoreChange(len(differences), 0.0, (0.0, 0.0), 1.0)
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, 1_000_000 // len(sums))
    for start in range(0, resamples, rows):
        some = means[start : start + rows]
        drawn = random.integers(len(sums), size=(len(some), len(sums)))
        of_all = counts[drawn].sum(axis=1) if counts.min() < counts.max() else counts.sum()
        some[:] = sums[drawn].sum(axis=1) / of_all
    p = _sign_flips(sums, random, resamples)
    return ScoreChange(len(differences), mean, percentiles(means), p)


def _sign_flips(sums: Floats, random: np.random.Generator, resamples: int) -> float:
    """Two-sided p-value of the sum under random signs of its parts."""
    parts = np.abs(sums[sums != 0])
    bar = abs(sums.sum()) - TIE * parts.sum()
    if len(parts) <= EXACT_CLUSTERS:
        totals = np.zeros(1)
        for part in parts:
            totals = np.concatenate([totals - part, totals + part])
        return float(np.mean(np.abs(totals) >= bar))
    extreme = 0
    rows = max(1, 1_000_000 // len(parts))
    for start in range(0, resamples, rows):
        signs = random.integers(2, size=(min(rows, resamples - start), len(parts))) * 2 - 1
        extreme += int(np.count_nonzero(np.abs(signs @ parts) >= bar))
    return (1 + extreme) / (1 + resamples)


def _cluster_sums(
    values: Sequence[float], clusters: Sequence[Hashable]
) -> dict[Hashable, tuple[float, int]]:
    """For each cluster the sum and the number of its values."""
    members: dict[Hashable, list[float]] = defaultdict(list)
    for value, cluster in zip(values, clusters, strict=True):
        members[cluster].append(value)
    return {cluster: (math.fsum(sorted(group)), len(group)) for cluster, group in members.items()}
