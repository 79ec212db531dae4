"""Two runs compared: what cannot be, each finding, what else was not the same, a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from pytest_llmprobe.report.baseline import Baseline
from pytest_llmprobe.report.check import Check, Verdict
from pytest_llmprobe.report.comparison_causes import Difference, changed_prompts, why
from pytest_llmprobe.report.comparison_limits import limit_checks
from pytest_llmprobe.report.comparison_pairs import ComparedExperiment, compare_experiment
from pytest_llmprobe.report.comparison_verdicts import (
    Allowed,
    ComparedSuite,
    conclude_all,
)
from pytest_llmprobe.report.gate import CHANGE, run_verdict
from pytest_llmprobe.statistics.paired import holm

ENOUGH = 0.9
"""Share of the first run's measured cases that must be pairs for an experiment to pass."""


@dataclass(frozen=True)
class Comparison:
    """Two runs compared.

    Args:
        first: What the first run, the baseline, is called.
        prompts: That prompts changed and why, to be said before anything else; None if none did.
        remarks: What cannot be compared.
        experiments: Sorted by name.
        differences: What was not the same, likeliest cause first.
        asked: Names of the experiments that the first run measured: a second run is judged by them.
        suite: All experiments in one test; None unless there are several.
        families: Each family of experiments that has a test because one of them has none.
        limits: Checks of scores and timings that may change by so much.
    """

    first: str
    second: str
    remarks: Sequence[str]
    experiments: Sequence[ComparedExperiment]
    differences: Sequence[Difference]
    asked: Sequence[str]
    prompts: str | None = None
    suite: ComparedSuite | None = None
    families: Sequence[ComparedSuite] = ()
    limits: Sequence[Check] = ()

    @property
    def checks(self) -> list[Check]:
        """The baseline gate: one check for each experiment that was measured, and one of all.

        What the first run did not measure is nothing that the second one could lose.
        """
        judged = (
            e
            for e in self.experiments
            if e.errors or (e.name in self.asked and e.finding != "report only")
        )
        return [*map(_check, judged), *map(_suite_check, self.together), *self.limits]

    @property
    def together(self) -> list[ComparedSuite]:
        """All that was judged over several experiments, the suite last."""
        return [*self.families, *([self.suite] if self.suite else [])]

    @property
    def verdict(self) -> tuple[Verdict, str]:
        """FAIL if one is worse or has errors, PASS if all were judged; with its reason."""
        failed = any(check.verdict == "FAIL" for check in self.checks)
        verdict, reason = run_verdict(self.checks, int(failed), 0, caveat=self.prompts)
        return verdict, reason if self.checks else f"{self.first} has measured nothing"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        verdict, reason = self.verdict
        data = asdict(self) | {"verdict": verdict, "reason": reason}
        del data["asked"]
        for experiment in data["experiments"]:
            del experiment["flips"]
        return data


def compare(
    first: Baseline,
    second: Baseline,
    names: tuple[str, str] = ("the first run", "the second run"),
    *,
    same_prompts: bool = False,
) -> Comparison:
    """Compare a run with an earlier one, experiment by experiment, as pairs of cases.

    An experiment is worse or better if its test says so after Holm's correction over all that have
    one, and the suite is worse if the test of all cases together says so (`suite_test`). Scores are
    compared and corrected in the same way among themselves, but decide nothing: which way is better
    is not known. A case whose prompt changed is a pair, too: then model and prompt are judged
    together; with ``same_prompts`` an experiment with such a pair may be worse, and is else not
    judged. So is one of whose measured cases too few have a pair. The second run says which
    experiments may lose how much, and which are only reported. ``names`` are what to call the two
    runs.
    """
    everything = sorted(first.experiments.keys() | second.experiments.keys())
    found = [compare_experiment(name, first, second, names) for name in everything]
    measured = Counter(case.experiment for case in first.cases.values() if case.judged)
    whole = [_with_enough_pairs(e, measured[e.name], names[0]) for e in found]
    pairless = {e.name: e.reason for e in whole if e.finding == "not judged"}
    limits = limit_checks(first, second, found, pairless)
    found, suite, families = conclude_all(found, *_rules(second), _families(second))
    found = [_with_enough_pairs(e, measured[e.name], names[0]) for e in found]
    remarks = [
        *_run_remarks(first, second, names),
        *(f"{e.name}: {remark}" for e in found for remark in e.remarks),
    ]
    found = [_with_prompts(e, same_prompts) for e in _adjust_scores(found)]
    causes, prompts = why(first, second), changed_prompts(first, second)
    return Comparison(
        *names, remarks, found, causes, sorted(measured), prompts, suite, families, limits
    )


def _with_prompts(experiment: ComparedExperiment, must_be_same: bool) -> ComparedExperiment:
    """The finding says whether it is of the model alone; where it must be, it may be none."""
    if not experiment.prompts_changed or experiment.finding == "not judged":
        return experiment
    changed = f"{experiment.prompts_changed} of {experiment.n} prompts changed"
    if must_be_same and experiment.finding not in ("worse", "report only"):
        reason = f"{changed}, and they were to be the same ({experiment.reason})"
        return replace(experiment, finding="not judged", reason=reason)
    reason = f"{experiment.reason}; model and prompt together, {changed}"
    return replace(experiment, reason=reason)


def _with_enough_pairs(
    experiment: ComparedExperiment, measured: int, first: str
) -> ComparedExperiment:
    """Not judged where what is left of it says too little of the whole."""
    enough = not experiment.n or experiment.n >= ENOUGH * measured  # none: it says so itself
    if experiment.finding in ("worse", "report only") or enough:
        return experiment
    reason = f"only {experiment.n} of {measured} cases of {first} have a pair"
    if experiment.finding == "not judged":
        reason = f"{reason}; {experiment.reason}"
    return replace(experiment, finding="not judged", reason=reason)


def _rules(run: Baseline) -> tuple[dict[str, Allowed], set[str]]:
    """By experiment what may be lost, and those that are no ground for a verdict."""
    unjudged = {name for name, e in run.experiments.items() if e.get("judged") is False}
    allowed = {
        name: Allowed(e.get("allowed_drop"), (e.get("against_baseline") or {}).get("recovery"))
        for name, e in run.experiments.items()
    }
    return {name: rule for name, rule in allowed.items() if any(r is not None for r in rule)}, (
        unjudged
    )


def _families(run: Baseline) -> dict[str, str]:
    """By experiment the folder that its test file is in; none for one that is in no folder."""
    folders = {
        case.experiment: PurePosixPath(case.id.partition("::")[0]).parent.name
        for case in run.cases.values()
    }
    return {name: folder for name, folder in folders.items() if folder}


def _run_remarks(first: Baseline, second: Baseline, names: tuple[str, str]) -> list[str]:
    remarks = []
    for which, run in zip(names, (first, second), strict=True):
        if run.status != "complete":
            remarks.append(f"{which} is {run.status}")
    return remarks


def _adjust_scores(experiments: Sequence[ComparedExperiment]) -> list[ComparedExperiment]:
    """With Holm's correction over all scores of all experiments."""
    adjusted = iter(holm([score.change.p for e in experiments for score in e.scores.values()]))
    return [
        replace(
            e,
            scores={k: replace(score, p_adjusted=next(adjusted)) for k, score in e.scores.items()},
        )
        for e in experiments
    ]


def _check(experiment: ComparedExperiment) -> Check:
    verdict: Verdict = "NOT JUDGED" if experiment.finding == "not judged" else "PASS"
    if experiment.finding == "worse" or (experiment.errors and experiment.n):
        verdict = "FAIL"
    reason = experiment.reason
    if experiment.finding in ("worse", "better", "drop allowed"):
        reason = f"{experiment.finding}: {reason}"
    change = experiment.difference
    return Check(experiment.name, CHANGE, 0.0, "significant", change, verdict, reason)


def _suite_check(suite: ComparedSuite) -> Check:
    verdicts: dict[str, Verdict] = {"worse": "FAIL", "not judged": "NOT JUDGED"}
    verdict = verdicts.get(suite.finding, "PASS")
    reason = f"{suite.finding}: {suite.reason}"
    return Check(suite.name, CHANGE, 0.0, "significant", suite.difference, verdict, reason)
