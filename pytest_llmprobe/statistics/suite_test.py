"""Is a suite worse: a test for each experiment that can have one, and one of all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from pytest_llmprobe.statistics.clusters import (
    TIE,
    Flips,
    correlations,
    deflated,
    design_effect,
    shown_correlation,
    sign_flip_test,
)
from pytest_llmprobe.statistics.paired import holm, mcnemar

LEVEL = 0.05
"""Chance of any false alarm in a whole comparison."""

SUITE_LEVEL = 0.01
"""The part of it that the test of all experiments together takes."""

LEAST_LOST, SURELY_LOST = 5, 7
"""Cases lost and none gained that fail an experiment which passes none any more, untested; of
several experiments one that has clusters enough for a test of its own must lose the more, as among
many of them chance makes some that passed five cases pass none."""

ENOUGH_CLUSTERS = 20
"""Clusters of the other experiments from which on their silence means that there is no noise."""

Method: TypeAlias = Literal["clusters", "cases", "suite"]


@dataclass(frozen=True)
class ExperimentTest:
    """One experiment's test.

    Args:
        method: ``clusters``: by signs of whole clusters, which holds however much a cluster flips
            together. ``cases``: McNemar's test on effective flips, where the clusters are too few
            for that. ``suite``: no outcome of either would be significant, so that it is judged
            with the others alone.
        p: Two-sided; 1 for ``suite``.
        p_adjusted: Holm's, over the experiments with a test.
        effective: Independent pairs that are as certain, all of them counted.
        level: What ``p_adjusted`` must be below.
        all_lost: Whether it passed cases, passes none now, and lost too many for an accident.
    """

    method: Method
    p: float
    p_adjusted: float
    effective: float
    level: float
    all_lost: bool

    @property
    def found(self) -> bool:
        """Whether the rate has changed."""
        return self.all_lost or (self.method != "suite" and self.p_adjusted < self.level)


@dataclass(frozen=True)
class SuiteTest:
    """The test of all experiments together.

    Args:
        n: Pairs.
        clusters: Their clusters.
        effective: Independent pairs that are as certain.
        p: One-sided: that the suite is no worse.
        able: Whether some outcome would be significant.
    """

    n: int
    clusters: int
    effective: float
    lost: int
    gained: int
    p: float
    able: bool

    @property
    def worse(self) -> bool:
        """Whether all experiments together have become worse."""
        return self.able and self.p < SUITE_LEVEL


@dataclass(frozen=True)
class FamilyTest:
    """The test of the experiments of one family, some of which have none of their own.

    Args:
        whole: Their pairs in one test.
        p_adjusted: Holm's, over the experiments with a test and the families.
        level: What it must be below.
    """

    whole: SuiteTest
    p_adjusted: float
    level: float

    @property
    def worse(self) -> bool:
        """Whether the family has become worse."""
        return self.p_adjusted < self.level


class SuiteTests(NamedTuple):
    """All tests of a comparison, by name; the suite's is None for one experiment alone."""

    experiments: dict[str, ExperimentTest]
    suite: SuiteTest | None
    families: dict[str, FamilyTest]


def compare_suite(
    experiments: Mapping[str, Flips],
    second_passed: Mapping[str, int],
    families: Mapping[str, str] | None = None,
) -> SuiteTests:
    """Test each experiment and all together; a false alarm of any has the chance ``LEVEL``.

    The suite has its own part of the level, which goes to the experiments once it is found to be
    worse (the fallback procedure: Wiens and Dmitrienko 2005, Journal of Biopharmaceutical
    Statistics 15:929); Holm's correction shares the rest among those that can have a test. One
    experiment alone is its own suite: it has the whole level, and the second result is None.

    A family has a test of its own beside those of its experiments, in the same correction, if one
    of them can have none.

    Args:
        experiments: By name, the flips of their pairs.
        second_passed: By name, how many of the pairs passed in the second run.
        families: By name, the family of an experiment that has one.
    """
    found = correlations(list(experiments.values()))
    correlation = dict(zip(experiments, found, strict=True))
    suite = _whole(experiments, correlation) if len(experiments) > 1 else None
    level = LEVEL if suite is None or suite.worse else LEVEL - SUITE_LEVEL
    strict = LEVEL if suite is None else LEVEL - SUITE_LEVEL  # what can be tested, whatever comes
    methods, members = _methods(experiments, correlation, strict, families or {})
    wholes = {
        family: _whole({name: experiments[name] for name in names}, correlation)
        for family, names in members.items()
    }
    p_values = {
        (name, False): _p_value(experiments[name], method, correlation[name])
        for name, method in methods.items()
        if method != "suite"
    } | {(family, True): whole.p for family, whole in wholes.items()}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    fallen = {
        name
        for name, flips in experiments.items()
        if second_passed[name] == 0 and sum(flips.lost) >= LEAST_LOST
    }
    others = [flips for name, flips in experiments.items() if name not in fallen]
    tests = {
        name: ExperimentTest(
            methods[name],
            p_values.get((name, False), 1.0),
            adjusted.get((name, False), 1.0),
            flips.n / design_effect(flips.sizes, correlation[name]),
            level,
            name in fallen
            and _outright(
                flips,
                others,
                SURELY_LOST if suite is not None and methods[name] == "clusters" else LEAST_LOST,
            ),
        )
        for name, flips in experiments.items()
    }
    together = {
        family: FamilyTest(whole, adjusted[family, True], level) for family, whole in wholes.items()
    }
    return SuiteTests(tests, suite, together)


def _outright(flips: Flips, others: Sequence[Flips], least: int) -> bool:
    """Whether a fall to 0 needs no test, as far as the other experiments do not tell of chance.

    Where they show clusters that flip as one, so many effective flips must be lost. Where they are
    too few to show it, most clusters must have been passed: of haystacks that hardly any model
    passes, a lucky one is lost in the next run.
    """
    most = 2 * sum(lost > 0 for lost in flips.lost) > len(flips.lost)
    if not most and sum(len(other.sizes) for other in others) < ENOUGH_CLUSTERS:
        return False
    return deflated(flips, shown_correlation(others))[0] >= least


def _whole(experiments: Mapping[str, Flips], correlation: Mapping[str, float]) -> SuiteTest:
    flips = Flips.together(experiments.values())
    clusters = len(flips.sizes)
    return SuiteTest(
        flips.n,
        clusters,
        _together(experiments, correlation),
        sum(flips.lost),
        sum(flips.gained),
        sign_flip_test(flips.sums, worse=True),
        0.5**clusters < SUITE_LEVEL,
    )


def _together(experiments: Mapping[str, Flips], correlation: Mapping[str, float]) -> float:
    """Effective pairs of all: n^2 over the sum of each experiment's n times its design effect."""
    n = sum(flips.n for flips in experiments.values())
    inflated = (
        flips.n * design_effect(flips.sizes, correlation[name])
        for name, flips in experiments.items()
    )
    return n * n / sum(inflated)


def _methods(
    experiments: Mapping[str, Flips],
    correlation: Mapping[str, float],
    level: float,
    families: Mapping[str, str],
) -> tuple[dict[str, Method], dict[str, list[str]]]:
    """For each experiment the test that could be significant among the others that can be.

    And the families that have a test, with their experiments: those of several experiments, but not
    all there are, of which one is left without a test and which have clusters enough for one.
    """
    least = {name: _least_p(flips, correlation[name]) for name, flips in experiments.items()}
    ordered = sorted(min(both) for both in least.values())

    def tested(besides: int) -> int:
        """Experiments that can have a test, if so many others share the level."""
        found = (k for k, p in enumerate(ordered, 1) if p < level / (k + besides))
        return max(found, default=0)

    count = tested(0)
    untested = {n for n, both in least.items() if not count or min(both) >= level / count}
    several = _several(families, experiments)
    members = {f: names for f, names in several.items() if not untested.isdisjoint(names)}
    share = level / ((tested(len(members)) + len(members)) or 1)
    members = {
        family: names
        for family, names in members.items()
        if 0.5 ** sum(len(experiments[name].sizes) for name in names) < share
    }
    count = tested(len(members))
    share = level / (count + len(members)) if count else 0.0
    return {
        name: "clusters" if by_clusters < share else "cases" if by_cases < share else "suite"
        for name, (by_clusters, by_cases) in least.items()
    }, members


def _several(families: Mapping[str, str], experiments: Mapping[str, Flips]) -> dict[str, list[str]]:
    """The families of several experiments, but not of all there are."""
    members: dict[str, list[str]] = {}
    for name in experiments:
        if family := families.get(name):
            members.setdefault(family, []).append(name)
    return {f: names for f, names in members.items() if 1 < len(names) < len(experiments)}


def _least_p(flips: Flips, correlation: float) -> tuple[float, float]:
    """The smallest p-values of both tests: those of every pair lost."""
    effective = int(flips.n / design_effect(flips.sizes, correlation) + TIE)
    return min(1.0, 2 * 0.5 ** len(flips.sizes)), mcnemar(effective, 0)


def _p_value(flips: Flips, method: Method, correlation: float) -> float:
    if method == "clusters":
        return sign_flip_test(flips.sums)
    effective, rare = deflated(flips, correlation)
    return mcnemar(rare, effective - rare)
