"""Flips of cases in clusters: how alike a cluster's flips are, and tests that allow for it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

CAUTION = 2.0
"""Weight, in clusters, of the supposition that clusters change as one, against what others show."""

OTHERS = 4.0
"""Weight of what the other experiments show against an experiment's own clusters."""

TIE = 1e-9
"""Numbers that are closer than this part of their size are equal up to rounding."""


@dataclass(frozen=True)
class Flips:
    """An experiment's pairs by cluster: how many there are, were lost and were gained in each."""

    sizes: Sequence[int]
    lost: Sequence[int]
    gained: Sequence[int]

    @classmethod
    def of(cls, changes: Sequence[int], clusters: Sequence[Hashable]) -> Flips:
        """From a change (-1 lost, +1 gained, else 0) and a cluster for each pair."""
        counts: dict[Hashable, list[int]] = {}
        for change, cluster in zip(changes, clusters, strict=True):
            found = counts.setdefault(cluster, [0, 0, 0])
            found[0] += 1
            found[1] += change < 0
            found[2] += change > 0
        ordered = sorted(counts.values())
        return cls(*([found[column] for found in ordered] for column in range(3)))

    @classmethod
    def together(cls, several: Iterable[Flips]) -> Flips:
        """Those of several experiments, whose clusters are no one else's."""
        every = list(several)
        return cls(
            [size for flips in every for size in flips.sizes],
            [lost for flips in every for lost in flips.lost],
            [gained for flips in every for gained in flips.gained],
        )

    @property
    def n(self) -> int:
        """Pairs."""
        return sum(self.sizes)

    @property
    def sums(self) -> list[int]:
        """Gained minus lost in each cluster."""
        return [gained - lost for lost, gained in zip(self.lost, self.gained, strict=True)]


def sign_flip_test(sums: Sequence[int], *, worse: bool = False) -> float:
    """Exact test that sums of clusters are as often below 0 as above.

    If two models are alike, each cluster's sum is as likely as its opposite, however much its cases
    flip together (Fisher 1935, The Design of Experiments, section 21). All 2^G signs are counted by
    convolution. Where each cluster has one flip this is the exact McNemar test.

    Args:
        sums: Gained minus lost cases in each cluster.
        worse: Count the signs with a total as low or lower alone, instead of as far from 0.
    """
    parts = sorted(abs(part) for part in sums if part)
    total = sum(parts)
    ways = np.ones(1)  # of the sum of the parts whose sign is kept, from 0 to the sum so far
    for part in parts:
        more = np.zeros(len(ways) + part)
        more[: len(ways)] += ways
        more[part:] += ways
        ways = more / 2
    kept = np.arange(len(ways))
    totals = 2 * kept - total
    if worse:
        return min(1.0, float(ways[totals <= sum(sums)].sum()))
    return min(1.0, float(ways[np.abs(totals) >= abs(sum(sums))].sum()))


def correlations(several: Sequence[Flips]) -> list[float]:
    """How much the changes of one cluster agree in each experiment: 0 not at all, 1 always.

    Each experiment's own moment estimate is drawn to that of all others, and this to 1, by weights:
    an experiment knows as much as it has clusters, or flips that could have shared one.
    """
    known = [_correlation(flips) for flips in several]
    found = []
    for place, (own, weight) in enumerate(known):
        rest = known[:place] + known[place + 1 :]
        others = (CAUTION + sum(r * w for r, w in rest)) / (CAUTION + sum(w for _, w in rest))
        blend = (weight * own + OTHERS * others) / (weight + OTHERS)
        found.append(min(1.0, max(0.0, blend)))
    return found


def shown_correlation(several: Iterable[Flips]) -> float:
    """What the experiments show together, supposing nothing; 0 if they show nothing."""
    known = [_correlation(flips) for flips in several]
    weight = sum(w for _, w in known)
    return min(1.0, max(0.0, sum(r * w for r, w in known) / weight)) if weight else 0.0


def _correlation(flips: Flips) -> tuple[float, float]:
    """The moment estimate of one experiment around its mean change, and its weight."""
    sizes, sums = np.array(flips.sizes, dtype=float), np.array(flips.sums, dtype=float)
    clusters, n = len(sizes), float(sizes.sum())
    count = sum(flips.lost) + sum(flips.gained)
    most = float((sizes**2).sum()) / n - 1 if n else 0.0
    mean = sums.sum() / n if n else 0.0
    alone = count - n * mean**2
    weight = min(clusters, count) - 1.0
    if weight <= 0 or most <= 0 or alone <= 0:
        return 0.0, 0.0
    together = float(((sums - sizes * mean) ** 2).sum()) * clusters / (clusters - 1)
    return min(1.0, (together / alone - 1) / most), weight


def design_effect(sizes: Sequence[int], correlation: float) -> float:
    """By how much clusters of these sizes multiply a variance (Kish 1965, Survey Sampling)."""
    n = sum(sizes)
    return 1 + correlation * (sum(size * size for size in sizes) / n - 1) if n else 1.0


def deflated(flips: Flips, correlation: float) -> tuple[int, int]:
    """Flips and the rarer of them as independent ones, rounded against a finding.

    Both are divided by the design effect (Rao and Scott 1992, Biometrics 48:577).
    """
    lost, gained = sum(flips.lost), sum(flips.gained)
    if not lost + gained:
        return 0, 0
    effective = math.floor((lost + gained) / design_effect(flips.sizes, correlation) + TIE)
    rare = math.ceil(min(lost, gained) * effective / (lost + gained) - TIE)
    return effective, rare
