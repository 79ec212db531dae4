"""Scores and timings held to what they may change by against a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from pytest_llmprobe.report.baseline import Baseline, CaseResult
from pytest_llmprobe.report.check import Check, Verdict
from pytest_llmprobe.report.comparison_pairs import ComparedExperiment
from pytest_llmprobe.report.limits import SPEEDS, TIMINGS, Kind, amount
from pytest_llmprobe.statistics.intervals import Interval, mean_interval
from pytest_llmprobe.statistics.paired import change_interval

FEWEST = 5
"""Independent groups of pairs that an interval of a score's change needs."""


@dataclass(frozen=True)
class _Limit:
    """By how much one score of one experiment may change."""

    experiment: str
    metric: str
    kind: Kind
    given: float | str

    def check(self, first: float) -> Check:
        """Not judged yet, with the limit in the score's own unit."""
        number, is_part = amount(self.given)
        allowed = number * abs(first) if is_part else number
        return Check(
            self.experiment, self.metric, allowed, "significant", None, "NOT JUDGED", "", self.kind
        )

    @property
    def shown(self) -> str:
        what = "a drop" if self.kind == "max_drop" else "an increase"
        given = self.given if isinstance(self.given, str) else f"{self.given:g}"
        return f"{what} of {given} allowed"


def limit_checks(
    first: Baseline,
    second: Baseline,
    compared: Sequence[ComparedExperiment],
    pairless: Mapping[str, str],
) -> list[Check]:
    """A check for each limit of a change that the second run's experiments have.

    A score passes if the 95 % interval of its mean change over the pairs lies wholly within the
    limit, fails if it lies wholly beyond, and is not judged between. A timing has no interval: its
    value decides, and only where both runs were made on the same machine.

    Args:
        first: The baseline.
        second: The run that is judged.
        compared: Their experiments.
        pairless: By experiment, why its pairs are no ground for a verdict, if they are none.
    """
    checks = []
    for experiment in compared:
        entry = second.experiments.get(experiment.name, {})
        changes = (entry.get("against_baseline") or {}).get("score", {})
        pairs = _pairs(first, second, experiment.name) if changes else []
        for metric, limits in sorted(changes.items()):
            for kind, given in sorted(limits.items()):
                if given is None:
                    continue
                limit = _Limit(experiment.name, metric, kind, given)
                if missing := pairless.get(experiment.name):
                    checks.append(replace(limit.check(0.0), reason=missing))
                elif metric in SPEEDS and (other := _another_machine(first, second)):
                    reason = f"{metric} is only compared on the same machine: {other}"
                    checks.append(replace(limit.check(0.0), reason=reason))
                elif metric in TIMINGS:
                    checks.append(_timing(limit, first, second))
                else:
                    checks.append(_score(limit, pairs))
    return checks


def _pairs(first: Baseline, second: Baseline, name: str) -> list[tuple[CaseResult, CaseResult]]:
    return [
        (case, second.cases[key])
        for key, case in first.cases.items()
        if case.experiment == name
        and key in second.cases
        and case.judged
        and second.cases[key].judged
    ]


def _score(limit: _Limit, pairs: Sequence[tuple[CaseResult, CaseResult]]) -> Check:
    name = limit.metric
    if not any(name in b.scores for _, b in pairs):
        reason = f"no case gave the score {name!r}"
        return replace(limit.check(0.0), verdict="FAIL", reason=reason)
    both = [(a, b) for a, b in pairs if name in a.scores and name in b.scores]
    if len(both) < len(pairs):
        reason = f"only {len(both)} of {len(pairs)} pairs have the score {name!r} in both runs"
        return replace(limit.check(0.0), reason=reason)
    before, after = ([case.scores[name] for case in run] for run in zip(*both, strict=True))
    clusters = [case.cluster for case, _ in both]
    check = limit.check(fmean(before))
    change = fmean(after) - fmean(before)
    shown = f"{name} {fmean(before):.4g} -> {fmean(after):.4g}, with {limit.shown}"
    if len(set(clusters)) < FEWEST:
        reason = f"{shown}: {len(set(clusters))} independent groups of cases are too few"
        return replace(check, value=change, reason=reason)
    low, high = _excess(limit, before, after, clusters)
    verdict: Verdict = "PASS" if high <= 0 else "FAIL" if low > 0 else "NOT JUDGED"
    return replace(check, value=change, verdict=verdict, reason=_said(shown, low, high, verdict))


def _excess(
    limit: _Limit, before: Sequence[float], after: Sequence[float], clusters: Sequence[Any]
) -> Interval:
    """Interval of how far the mean changes beyond the limit; below 0 it stays within."""
    sign = -1 if limit.kind == "max_drop" else 1
    number, is_part = amount(limit.given)
    if {*before, *after} <= {0.0, 1.0}:
        changes = [round(sign * (b - a)) for a, b in zip(before, after, strict=True)]
        allowed = number * fmean(before) if is_part else number
        low, high = change_interval(changes, clusters)
        return low - allowed, high - allowed
    beyond = [
        sign * (b - a) - (number * abs(a) if is_part else number)
        for a, b in zip(before, after, strict=True)
    ]
    if all(value == beyond[0] for value in beyond):
        return beyond[0], beyond[0]
    return mean_interval([*beyond], clusters) or (-float("inf"), float("inf"))


def _said(shown: str, low: float, high: float, verdict: Verdict) -> str:
    if verdict == "PASS":
        return f"{shown}: surely within"
    if verdict == "FAIL":
        return f"{shown}: surely beyond, by {max(low, 0.0):.3g} to {high:.3g}"
    return f"{shown}: between {-low:.3g} within and {high:.3g} beyond; more cases would decide"


def _timing(limit: _Limit, first: Baseline, second: Baseline) -> Check:
    name, key = limit.metric, TIMINGS[limit.metric]
    if other := _another_machine(first, second):
        reason = f"{name} is only compared on the same machine, asked the same way: {other}"
        return replace(limit.check(0.0), reason=reason)
    before, after = (run.experiments[limit.experiment]["timings"][key] for run in (first, second))
    if before is None or after is None:
        return replace(limit.check(0.0), reason=f"no case generated anything: there is no {name}")
    check, change = limit.check(before), after - before
    within = (-change if limit.kind == "max_drop" else change) <= check.bar
    reason = f"{name} {before:.4g} -> {after:.4g}, with {limit.shown}"
    return replace(check, value=change, verdict="PASS" if within else "FAIL", reason=reason)


def _known(value: object) -> str:
    return "not recorded" if value is None else str(value)


def _another_machine(first: Baseline, second: Baseline) -> str:
    """What says that the runs' timings are not of one machine; empty if nothing does."""
    for run in (first, second):
        if run.config.get("replay"):
            return "answers were replayed"
    for part, key in (
        ("environment", "cpu"),
        ("environment", "accelerators"),
        ("environment", "platform"),
        ("model_info", "device"),
        ("config", "engine"),
        ("config", "workers"),
    ):
        one, two = (getattr(run, part).get(key) for run in (first, second))
        if one != two:
            return f"{key} {_known(one)} -> {_known(two)}"
    return ""
