"""How much has not been seen yet: Simple Good-Turing and its neighbours, from counts of counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import linear_regression

from pytest_llmprobe.errors import CasesError, SettingsError

WIDTH = 1.65
"""Standard deviations by which a raw estimate must differ from the regression to be kept."""


@dataclass(frozen=True)
class GoodTuring:
    """A Simple Good-Turing estimate; its total mass ``unseen_mass + sum N_r p_r`` is 1.

    Args:
        unseen_mass: P0, the probability that the next sample is of a type not seen yet.
        adjusted_counts: r* for each r, renormalised as in the paper's tables: N p_r.
        probabilities: p_r, the probability of one type that was seen r times, for each r.
        intercept: Of the regression ln Z = intercept + slope ln r; None with fewer than two r.
        slope: Of the regression. The method supposes one below -1; above that the counts fall too
            slowly and r* exceeds r.
        switch: The first r whose r* comes from the regression; None if there is no regression.
    """

    unseen_mass: float
    adjusted_counts: Mapping[int, float]
    probabilities: Mapping[int, float]
    intercept: float | None
    slope: float | None
    switch: int | None


def simple_good_turing(counts_of_counts: Mapping[int, int]) -> GoodTuring:
    """Estimate the probability of the unseen and of each count (Gale and Sampson 1995, JQL 2:217).

    With fewer than two different r there is nothing to fit, and the documented values are these.
    Nothing seen: all mass is unseen. One r above 1: nothing is unseen, all types are equally
    likely. Only r = 1: all mass is unseen, p_1 is 0. Without types seen once (N_1 = 0) the unseen
    mass is 0, whatever the other counts are.

    Args:
        counts_of_counts: N_r, how many types were seen r times, for each r from 1.

    Raises:
        CasesError: An r is below 1 or an N_r below 0.
    """
    types = _checked(counts_of_counts)
    if not types:
        return GoodTuring(1.0, {}, {}, None, None, None)
    samples = sum(r * n for r, n in types.items())
    unseen = types.get(1, 0) / samples
    if len(types) == 1:
        ((r, n),) = types.items()
        p = (1 - unseen) / n
        return GoodTuring(unseen, {r: samples * p}, {r: p}, None, None, None)
    intercept, slope = _regression(types)
    switch = next(r for r in types if not _keeps_turing(types, r, slope))
    raw = {r: _turing(types, r) if r < switch else _smooth(r, slope) for r in types}
    total = math.fsum(types[r] * raw[r] for r in types)
    probabilities = {r: (1 - unseen) * raw[r] / total for r in types}
    adjusted = {r: samples * p for r, p in probabilities.items()}
    return GoodTuring(unseen, adjusted, probabilities, intercept, slope, switch)


def _checked(counts_of_counts: Mapping[int, int]) -> dict[int, int]:
    """The N_r above 0 in order of r."""
    for r, n in counts_of_counts.items():
        if r < 1 or n < 0:
            raise CasesError(f"{n} types seen {r} times: count from r = 1, and no negative numbers")
    return {r: counts_of_counts[r] for r in sorted(counts_of_counts) if counts_of_counts[r]}


def _regression(types: Mapping[int, int]) -> tuple[float, float]:
    """Intercept and slope of ln Z_r = a + b ln r, where Z_r spreads N_r over the empty r around."""
    r = list(types)
    before = [0, *r[:-1]]
    after = [*r[1:], 2 * r[-1] - before[-1]]
    averaged = [types[q] / (0.5 * (t - s)) for s, q, t in zip(before, r, after, strict=True)]
    fit = linear_regression([math.log(q) for q in r], [math.log(z) for z in averaged])
    return fit.intercept, fit.slope


def _turing(types: Mapping[int, int], r: int) -> float:
    """Turing's estimate of r* from the counts themselves."""
    return (r + 1) * types.get(r + 1, 0) / types[r]


def _smooth(r: int, slope: float) -> float:
    """The estimate of r* from the regression, whose intercept cancels."""
    return (r + 1) * math.exp(slope * math.log1p(1 / r))


def _keeps_turing(types: Mapping[int, int], r: int, slope: float) -> bool:
    """Whether Turing's estimate differs significantly from that of the regression."""
    ratio = types.get(r + 1, 0) / types[r]
    deviation = (r + 1) * math.sqrt(ratio / types[r] * (1 + ratio))
    return ratio > 0 and abs(_turing(types, r) - _smooth(r, slope)) > WIDTH * deviation


def coverage(counts_of_counts: Mapping[int, int]) -> float:
    """Good's estimate 1 - N_1 / N of the probability that the next sample was seen before.

    0 if nothing was seen. Takes, and refuses, what `simple_good_turing` does.
    """
    types = _checked(counts_of_counts)
    return 1 - types.get(1, 0) / sum(r * n for r, n in types.items()) if types else 0.0


def chao1_unseen(counts_of_counts: Mapping[int, int]) -> float:
    """A lower bound of the number of unseen types: N_1 (N_1 - 1) / (2 (N_2 + 1)).

    The bias-corrected Chao1 (Chao 1984, Scandinavian Journal of Statistics 11:265; Chao 2005);
    0 if fewer than two types were seen once. Takes, and refuses, what `simple_good_turing` does.
    """
    types = _checked(counts_of_counts)
    once, twice = types.get(1, 0), types.get(2, 0)
    return once * (once - 1) / (2 * (twice + 1))


def good_toulmin(counts_of_counts: Mapping[int, int], t: float) -> float:
    """How many new types ``t`` times as many further samples would show: -sum (-t)^r N_r.

    Good and Toulmin 1956 (Biometrika 43:45). Its terms alternate, so a small sample can give a
    negative number; beyond ``t`` = 1 the series diverges.

    Raises:
        CasesError: An r is below 1 or an N_r below 0.
        SettingsError: ``t`` is not between 0 and 1.
    """
    if not 0 <= t <= 1:
        raise SettingsError(f"t = {t!r}: Good-Toulmin looks ahead between 0 and 1 times the sample")
    return 0.0 - math.fsum((-t) ** r * n for r, n in _checked(counts_of_counts).items())  # no -0.0
