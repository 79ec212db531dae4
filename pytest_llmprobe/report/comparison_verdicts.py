"""What the pairs of all experiments say together: each finding, and that of the suite."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from pytest_llmprobe.report.comparison_pairs import ComparedExperiment, Finding
from pytest_llmprobe.statistics import suite_test
from pytest_llmprobe.statistics.clusters import Flips
from pytest_llmprobe.statistics.intervals import Interval
from pytest_llmprobe.statistics.power import minimum_detectable_change
from pytest_llmprobe.statistics.suite_test import (
    SUITE_LEVEL,
    ExperimentTest,
    FamilyTest,
    SuiteTest,
)

SUITE = "(suite)"
"""In place of an experiment's name: all that could be compared."""


@dataclass(frozen=True)
class ComparedSuite:
    """The pairs of all experiments, or of one family, in one test.

    Args:
        name: ``SUITE``, or what a family is called in its place.
        reason: For the finding, in words.
        n: Pairs.
        clusters: Their clusters.
        effective: Independent pairs that would be as certain.
        p: One-sided, of signs of whole clusters: that they are no worse; a family's is Holm's.
        detectable: The drop of the pass rate that would have been found with 80 % probability.
    """

    name: str
    finding: Finding
    reason: str
    n: int
    clusters: int
    effective: float
    first_rate: float
    second_rate: float
    lost: int
    gained: int
    p: float
    detectable: float | None

    @property
    def difference(self) -> float:
        """Second rate minus first."""
        return self.second_rate - self.first_rate


class Allowed(NamedTuple):
    """What an experiment may lose: of its pass rate, and which part of it must be left."""

    drop: float | None = None
    recovery: float | None = None


def conclude_all(
    experiments: Sequence[ComparedExperiment],
    allowed: Mapping[str, Allowed],
    unjudged: Container[str],
    families: Mapping[str, str],
) -> tuple[list[ComparedExperiment], ComparedSuite | None, list[ComparedSuite]]:
    """Judge all experiments that can be, and with them the suite and families.

    Args:
        experiments: As ``compare_experiment`` gives them.
        allowed: By name what may be lost of the pass rate; those are judged by the interval
            of their difference alone, and are no part of the suite.
        unjudged: Names of experiments that are only reported.
        families: By name, the family of an experiment.
    """
    found = {e.name: e for e in experiments}
    judged = {}
    for e in experiments:
        if e.name in unjudged:
            reason = e.reason if e.finding == "not judged" else _rates(e)
            found[e.name] = replace(e, finding="report only", reason=reason)
        elif e.finding != "not judged" and e.name in allowed:
            found[e.name] = _within(e, allowed[e.name])
        elif e.finding != "not judged":
            judged[e.name] = e
    flips = {name: e.flips or Flips([], [], []) for name, e in judged.items()}
    passed = {name: round(e.n * (e.second_rate or 0.0)) for name, e in judged.items()}
    tests = suite_test.compare_suite(flips, passed, families)
    suite = _suite(tests.suite, judged) if tests.suite else None
    tested = sum(test.method != "suite" for test in tests.experiments.values())
    tested += len(tests.families)
    together = {
        family: _family(family, test, [e for n, e in judged.items() if families.get(n) == family])
        for family, test in tests.families.items()
    }
    for name, test in tests.experiments.items():
        family = together.get(families.get(name, ""))
        found[name] = _concluded(judged[name], test, tested, suite, family)
    return list(found.values()), suite, list(together.values())


def _rates(experiment: ComparedExperiment) -> str:
    return f"pass rate {experiment.first_rate:.3f} -> {experiment.second_rate:.3f}"


def _concluded(
    experiment: ComparedExperiment,
    test: ExperimentTest,
    tested: int,
    suite: ComparedSuite | None,
    family: ComparedSuite | None,
) -> ComparedExperiment:
    finding, reason = _finding(experiment, test, suite, family)
    least = None
    if finding == "no change found":
        share = (len(experiment.lost) + len(experiment.gained)) / experiment.n
        level = test.level / tested
        least = minimum_detectable_change(round(test.effective), share, level)
    return replace(
        experiment,
        finding=finding,
        reason=reason,
        effective=test.effective,
        p=test.p,
        p_adjusted=None if test.method == "suite" else test.p_adjusted,
        detectable=least,
        test=test.method,
    )


def _finding(
    experiment: ComparedExperiment,
    test: ExperimentTest,
    suite: ComparedSuite | None,
    family: ComparedSuite | None,
) -> tuple[Finding, str]:
    difference, rates = experiment.difference or 0.0, _rates(experiment)
    if test.all_lost:
        return "worse", f"{rates}, all of {len(experiment.lost)} passed cases lost"
    if test.method != "suite":
        numbers = f"{rates}, p = {test.p_adjusted:.2g}"
        if not test.found:
            return "no change found", numbers
        return ("worse" if difference < 0 else "better"), numbers
    few = f"{experiment.groups} independent groups of cases"
    if experiment.groups == experiment.n:
        few = f"{experiment.n} cases"
    if suite is None or suite.finding == "not judged":
        return "not judged", f"{rates}, and no outcome of {few} could tell chance from a change"
    those = [f"the suite ({suite.finding})"]
    if family is not None:
        those.insert(0, f"{family.name} ({family.finding})")
    return "with the suite", f"{rates}: {few} are judged with {' and '.join(those)}"


def _suite(test: SuiteTest, judged: Mapping[str, ComparedExperiment]) -> ComparedSuite:
    finding: Finding = "worse" if test.worse else "no loss found"
    if not test.able:
        finding = "not judged"
    return _together(SUITE, finding, test, list(judged.values()), test.p, SUITE_LEVEL)


def _family(
    name: str, test: FamilyTest, experiments: Sequence[ComparedExperiment]
) -> ComparedSuite:
    finding: Finding = "worse" if test.worse else "no loss found"
    return _together(f"({name})", finding, test.whole, experiments, test.p_adjusted, test.level)


def _together(
    name: str,
    finding: Finding,
    test: SuiteTest,
    experiments: Sequence[ComparedExperiment],
    p: float,
    level: float,
) -> ComparedSuite:
    def rate(which: str) -> float:
        return sum(e.n * (getattr(e, which) or 0.0) for e in experiments) / test.n

    first, second = rate("first_rate"), rate("second_rate")
    numbers = f"pass rate {first:.3f} -> {second:.3f} over {test.n} cases, p = {p:.2g}"
    if finding == "not judged":
        numbers = f"{test.clusters} independent groups of cases are too few for any test"
    share = (test.lost + test.gained) / test.n
    least = minimum_detectable_change(round(test.effective), share, 2 * level)
    return ComparedSuite(
        name,
        finding,
        numbers,
        test.n,
        test.clusters,
        test.effective,
        first,
        second,
        test.lost,
        test.gained,
        p,
        least,
    )


def _within(experiment: ComparedExperiment, allowed: Allowed) -> ComparedExperiment:
    """Non-inferiority: which side of what is allowed the whole interval lies on.

    Of two limits the one that is worst for the experiment decides.
    """
    found: list[tuple[Finding, str]] = []
    if allowed.drop is not None:
        found.append(_drop(experiment, allowed.drop))
    if allowed.recovery is not None:
        found.append(_recovery(experiment, allowed.recovery))
    finding, said = min(found, key=lambda one: SEVERITY.index(one[0]))
    return replace(
        experiment,
        finding=finding,
        reason=f"{_rates(experiment)}, {said}",
        allowed_drop=allowed.drop,
        required_recovery=allowed.recovery,
    )


SEVERITY: Sequence[Finding] = ("worse", "not judged", "drop allowed")
"""Findings of what may be lost, the worst first."""


def _drop(experiment: ComparedExperiment, allowed: float) -> tuple[Finding, str]:
    low, high = experiment.ci95 or (-1.0, 1.0)
    said = f"a difference between {low:+.3f} and {high:+.3f}, with a drop of {allowed:g} allowed"
    return _side(experiment, said, (low, high), -allowed, experiment.difference)


def _recovery(experiment: ComparedExperiment, least: float) -> tuple[Finding, str]:
    if experiment.recovery is None:
        return "not judged", "and of a pass rate of 0 nothing can be left"
    if experiment.recovery_ci95 is None:
        return "not judged", "so few passed before that no recovery can be told"
    low, high = experiment.recovery_ci95
    said = f"a recovery between {low:.3f} and {high:.3f}, with {least:g} required"
    return _side(experiment, said, (low, high), least, experiment.recovery)


def _side(
    experiment: ComparedExperiment,
    said: str,
    interval: Interval,
    limit: float,
    value: float | None,
) -> tuple[Finding, str]:
    if experiment.groups == 1 < experiment.n:
        return "not judged", f"{said}: one group of cases does not say how others would differ"
    if interval[0] > limit:
        return "drop allowed", said
    if interval[1] < limit:
        return "worse", said
    return "not judged", f"{said}: {_needed(experiment.n, interval, (value or 0.0) - limit)}"


def _needed(n: int, interval: Interval, distance: float) -> str:
    """How many cases would decide at this difference: a width goes with their square root."""
    half = (interval[1] - interval[0]) / 2
    if abs(distance) < half / 100:
        return "the difference is so close to it that no number of cases would decide"
    return f"about {math.ceil(n * (half / distance) ** 2)} cases like these would decide"
