"""Two runs compared: what cannot be, each finding, what else was not the same, a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pytest_llmprobe.report.baseline import Baseline
from pytest_llmprobe.report.comparison_causes import Difference, changed_prompts, why
from pytest_llmprobe.report.comparison_pairs import ComparedExperiment, compare_experiment, conclude
from pytest_llmprobe.report.gate import CHANGE, Check, Verdict, run_verdict
from pytest_llmprobe.statistics.paired import holm


@dataclass(frozen=True)
class Comparison:
    """Two runs compared.

    Args:
        first: What the first run, the baseline, is called.
        prompts: That prompts changed and why, to be said before anything else; None if none did.
        remarks: What cannot be compared.
        experiments: Sorted by name.
        differences: What was not the same, likeliest cause first.
    """

    first: str
    second: str
    remarks: Sequence[str]
    experiments: Sequence[ComparedExperiment]
    differences: Sequence[Difference]
    prompts: str | None = None

    @property
    def checks(self) -> list[Check]:
        """The baseline gate: one check for each experiment of the second run."""
        return [_check(experiment) for experiment in self.experiments if experiment.in_second]

    @property
    def verdict(self) -> tuple[Verdict, str]:
        """FAIL if an experiment is significantly worse or has errors; with its reason."""
        failed = any(check.verdict == "FAIL" for check in self.checks)
        return run_verdict(self.checks, int(failed), 0)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        verdict, reason = self.verdict
        return asdict(self) | {"verdict": verdict, "reason": reason}


def compare(
    first: Baseline, second: Baseline, names: tuple[str, str] = ("the first run", "the second run")
) -> Comparison:
    """Compare a run with an earlier one, experiment by experiment, as pairs of cases.

    An experiment is worse or better if the exact McNemar test says so after Holm's correction over
    all judged experiments, and the change exceeds the first run's ``noise``. Scores are compared
    and corrected in the same way among themselves, but decide nothing: which way is better is not
    known. A case whose prompt changed is a pair, too: then model and prompt are judged
    together. ``names`` are what to call the two runs.
    """
    everything = sorted(first.experiments.keys() | second.experiments.keys())
    found = [compare_experiment(name, first, second, names) for name in everything]
    judged = {e.name: e.p for e in found if e.finding != "not judged"}
    adjusted = dict(zip(judged, holm(list(judged.values())), strict=True))
    found = [
        conclude(e, adjusted[e.name], len(judged), first.noise.get(e.name, 0.0))
        if e.name in adjusted
        else e
        for e in found
    ]
    remarks = [
        *_run_remarks(first, second, names),
        *(f"{e.name}: {remark}" for e in found for remark in e.remarks),
    ]
    found = [_with_prompts(e) for e in _adjust_scores(found)]
    causes, prompts = why(first, second), changed_prompts(first, second)
    return Comparison(*names, remarks, found, causes, prompts)


def _with_prompts(experiment: ComparedExperiment) -> ComparedExperiment:
    """The finding says whether it is of the model alone."""
    if not experiment.prompts_changed or experiment.finding == "not judged":
        return experiment
    changed = f"{experiment.prompts_changed} of {experiment.n} prompts changed"
    reason = f"{experiment.reason}; model and prompt together, {changed}"
    return replace(experiment, reason=reason)


def _run_remarks(first: Baseline, second: Baseline, names: tuple[str, str]) -> list[str]:
    remarks = []
    if first.model != second.model:
        remarks.append(f"{names[0]} is of the model {first.model}, {names[1]} of {second.model}")
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
    if experiment.errors or experiment.finding == "worse":
        verdict = "FAIL"
    reason = experiment.reason
    if experiment.finding in ("worse", "better"):
        reason = f"{experiment.finding}: {reason}"
    change = experiment.difference
    return Check(experiment.name, CHANGE, 0.0, "significant", change, verdict, reason)
