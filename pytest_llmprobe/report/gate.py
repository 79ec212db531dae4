"""Verdicts: whether each experiment reached its bar, and what that says about the run."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from pytest_llmprobe.report.fidelity_gate import fidelity_checks
from pytest_llmprobe.report.plan import Bar, ExperimentPlan, Plan, Rule
from pytest_llmprobe.statistics.intervals import wilson

CHANGE = "change of the pass rate"
"""The metric of a check against a baseline."""

MEASURED = "MEASURED"
"""In place of a verdict where an experiment has no bar and no baseline: what it has is its rate."""

NO_BAR = (
    "no experiment has a bar; keep what was measured: `llmprobe bars RUN` as bars, or "
    "--llmprobe-save NAME as a baseline"
)
LENIENT = "--no-llmprobe-require-judged"
MAX_REASONS = 3
"""Undecided checks that the last line explains."""

Verdict: TypeAlias = Literal["PASS", "FAIL", "NOT JUDGED"]


@dataclass(frozen=True)
class Check:
    """One bar held against one measured value."""

    experiment: str
    metric: str
    bar: float
    rule: Rule
    value: float | None
    verdict: Verdict
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


def judge(
    plan: Plan, experiments: Sequence[Mapping[str, Any]], incapable: Container[str] = ()
) -> list[Check]:
    """Hold every bar of the plan against the summaries of its experiments.

    Args:
        plan: What was to be run.
        experiments: Their summaries.
        incapable: Names of those whose cases this model cannot be asked at all: a bar that the eval
            file has for whichever model says nothing of it.
    """
    checks = []
    for experiment in experiments:
        planned = plan[experiment["name"]]
        bar = planned.bar
        if bar is None or (planned.name in incapable and not bar.of_model):
            continue
        for metric, lowest in _bars(bar):
            checks.append(_check(experiment, planned, bar, metric, lowest))
        checks += fidelity_checks(experiment, bar)
    return checks


def _bars(bar: Bar) -> list[tuple[str, float]]:
    rate = [] if bar.pass_rate is None else [("pass_rate", bar.pass_rate)]
    return [*rate, *(bar.score or {}).items()]


def _check(
    experiment: Mapping[str, Any], planned: ExperimentPlan, bar: Bar, metric: str, lowest: float
) -> Check:
    if metric == "pass_rate":
        value, interval = experiment["pass_rate"], experiment["ci95_clustered"]
    else:
        score = experiment["scores"].get(metric, {"mean": None, "ci95": None})
        value, interval = score["mean"], score["ci95"]
    verdict: Verdict
    if experiment["errors"] and experiment["n"]:
        errors, n = experiment["errors"], experiment["n"]
        verdict, reason = "FAIL", f"{errors} of {n + errors} cases ended in an error"
    elif missing := _missing(experiment, planned.left_out):
        verdict, reason = "NOT JUDGED", missing
    elif value is None:
        given = ", ".join(experiment["scores"]) or "none"
        verdict, reason = "FAIL", f"no case gave the score {metric!r}; scores: {given}"
    elif reason := _cannot_fail(experiment["n"], bar, metric, lowest):
        verdict = "NOT JUDGED"
    elif value >= lowest:
        verdict, reason = "PASS", f"{metric} {_shown(value, lowest)} reaches {lowest:g}"
    elif bar.rule == "significant" and interval is not None and interval[1] >= lowest:
        verdict = "PASS"
        reason = f"{metric} {_shown(value, lowest)} is below {lowest:g}, but not significantly"
    else:
        verdict, reason = "FAIL", f"{metric} {_shown(value, lowest)} is below {lowest:g}"
    return Check(experiment["name"], metric, lowest, bar.rule, value, verdict, reason)


def _missing(experiment: Mapping[str, Any], left_out: int) -> str:
    """Which cases were not measured, if the experiment is not whole."""
    errors, n, collected = experiment["errors"], experiment["n"], experiment["collected"]
    if errors:  # nothing was measured beside
        return f"all {errors} cases{' that ran' if errors < collected else ''} ended in an error"
    if not collected:
        return "no test of it was collected"
    if experiment["skipped"] and experiment["skipped"] == collected:
        return f"all {collected} cases were skipped"
    if n < collected:
        return f"only {n} of {collected} cases were measured"
    if left_out:
        return f"--llmprobe-limit left out {left_out} cases"
    return ""


def _cannot_fail(n: int, bar: Bar, metric: str, lowest: float) -> str:
    """Why no outcome at all would fail, if so: such a bar passes nobody."""
    if metric != "pass_rate":
        return ""
    if lowest == 0:
        return "no pass rate is below 0: give a higher bar"
    if bar.rule == "significant" and wilson(0, n)[1] >= lowest:
        return f"with {n} cases no result would be significantly below {lowest:g}: run more"
    return ""


def _shown(value: float, lowest: float) -> str:
    """Three decimals, or more where they would hide on which side of the bar the value is."""
    text = f"{value:.3f}"
    return text if (float(text) >= lowest) == (value >= lowest) else f"{value:.6g}"


def lost_to_errors(
    experiments: Sequence[Mapping[str, Any]], failures: int, first_error: str
) -> str:
    """What to say where errors alone failed the run, and left nothing that tells of the model.

    Args:
        experiments: The summaries.
        failures: Failed tests and errors, other than misses that only count.
        first_error: Of a case.

    Returns:
        Which experiments have no answer at all; empty if something else failed, too.
    """
    lost = [e for e in experiments if e["errors"] and not e["n"]]
    errors = sum(e["errors"] for e in lost)
    if not lost or failures > errors or any(e["errors"] for e in experiments if e["n"]):
        return ""
    names = ", ".join(e["name"] for e in lost)
    return f"{names}: all {errors} cases that ran ended in an error: {first_error}"


def run_verdict(
    checks: Sequence[Check],
    exit_code: int,
    failures: int,
    faults: Sequence[str] = (),
    lost: str = "",
) -> tuple[Verdict, str]:
    """The verdict of a whole run and its reason, in agreement with pytest's exit code.

    PASS goes with exit code 0 alone: something was asked for, all of it was judged, and passed.
    FAIL goes with 1 alone. NOT JUDGED goes with 0 where nothing had to be judged, with 1 where
    something had to be and could not, and with all others.

    Args:
        checks: All checks.
        exit_code: What the process will exit with.
        failures: Failed tests and errors, other than misses that only count.
        faults: What else went wrong, such as a summary that could not be computed.
        lost: What ``lost_to_errors`` says.
    """
    failed = [check for check in checks if check.verdict == "FAIL"]
    undecided = [check for check in checks if check.verdict == "NOT JUDGED"]
    if exit_code not in (0, 1):
        return "NOT JUDGED", {2: "the run was interrupted"}.get(exit_code, f"exit code {exit_code}")
    if exit_code == 1 and (failed or faults):
        reasons = [*(f"{check.experiment}: {check.reason}" for check in failed), *faults]
        return "FAIL", "; ".join(reasons)
    if exit_code == 1 and lost:
        return "NOT JUDGED", lost
    if exit_code == 1 and (failures or (checks and not undecided)):
        return "FAIL", f"{failures or 'other'} tests failed or ended in an error"
    if undecided:
        remedy = f"; run what is missing, or give {LENIENT}" if exit_code == 1 else ""
        return "NOT JUDGED", f"{_undecided(checks, undecided)}{remedy}"
    if not checks:
        return "NOT JUDGED", NO_BAR
    return "PASS", f"{len(checks)} of {len(checks)} checks passed"


def _undecided(checks: Sequence[Check], undecided: Sequence[Check]) -> str:
    """What could not be judged, and why."""
    why = dict.fromkeys(f"{check.experiment}: {check.reason}" for check in undecided)
    said = "; ".join([*why][:MAX_REASONS])
    more = f" and {len(why) - MAX_REASONS} more" if len(why) > MAX_REASONS else ""
    return f"{len(undecided)} of {len(checks)} checks could not be judged: {said}{more}"
