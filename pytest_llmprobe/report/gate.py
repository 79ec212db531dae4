"""Verdicts: whether each experiment reached its bar, and what that says about the run."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pytest_llmprobe.report.check import Check, Verdict
from pytest_llmprobe.report.fidelity_gate import fidelity_checks
from pytest_llmprobe.report.limits import TIMINGS, Kind
from pytest_llmprobe.report.plan import Bar, Plan
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
        for metric, kind, limit in _bars(bar):
            check = Check(planned.name, metric, limit, bar.rule, None, "NOT JUDGED", "", kind)
            checks.append(_held(check, experiment, planned.left_out))
        checks += fidelity_checks(experiment, bar)
    return checks


def _bars(bar: Bar) -> list[tuple[str, Kind, float]]:
    bars: list[tuple[str, Kind, float]] = []
    if bar.pass_rate is not None:
        bars.append(("pass_rate", "min", bar.pass_rate))
    for name, limits in (bar.score or {}).items():
        bars += [(name, kind, limit) for kind, limit in limits.alone]
    return bars


def _held(check: Check, experiment: Mapping[str, Any], left_out: int) -> Check:
    """The check with its verdict."""
    value, interval = _measured(experiment, check.metric)
    reached, surely_not = _sides(check, value, interval)
    shown = "" if value is None else f"{check.metric} {_shown(value, check.bar)}"
    beyond = f"{shown} is {'below' if check.kind == 'min' else 'above'} {check.bar:g}"
    verdict: Verdict
    if experiment["errors"] and experiment["n"]:
        errors, n = experiment["errors"], experiment["n"]
        verdict, reason = "FAIL", f"{errors} of {n + errors} cases ended in an error"
    elif missing := _missing(experiment, left_out):
        verdict, reason = "NOT JUDGED", missing
    elif value is None:
        verdict, reason = _without_value(check.metric, experiment)
    elif reason := _cannot_fail(experiment["n"], check):
        verdict = "NOT JUDGED"
    elif reached:
        word = "reaches" if check.kind == "min" else "is at most"
        verdict, reason = "PASS", f"{shown} {word} {check.bar:g}"
    elif check.rule == "significant" and interval is not None and not surely_not:
        verdict, reason = "PASS", f"{beyond}, but not significantly"
    else:
        verdict, reason = "FAIL", beyond
    return replace(check, value=value, verdict=verdict, reason=reason)


def _measured(
    experiment: Mapping[str, Any], metric: str
) -> tuple[float | None, Sequence[float] | None]:
    """A metric's value and its interval; a timing has none.

    A score is that of the cases, or an entry of the summary with ``mean`` and ``ci95``: what is
    measured of all cases together, such as an area under a curve.
    """
    if metric == "pass_rate":
        return experiment["pass_rate"], experiment["ci95_clustered"]
    if metric in TIMINGS:
        return experiment["timings"][TIMINGS[metric]], None
    score = experiment["scores"].get(metric) or experiment.get("summary", {}).get(metric)
    if not isinstance(score, Mapping):
        return None, None
    return score.get("mean"), score.get("ci95")


def _sides(
    check: Check, value: float | None, interval: Sequence[float] | None
) -> tuple[bool, bool]:
    """Whether the value is on the right side of the bar, and its interval wholly on the wrong."""
    low, high = interval or (value, value)
    if value is None or low is None or high is None:
        return False, False
    if check.kind == "min":
        return value >= check.bar, high < check.bar
    return value <= check.bar, low > check.bar


def _without_value(metric: str, experiment: Mapping[str, Any]) -> tuple[Verdict, str]:
    if metric in TIMINGS:
        return "NOT JUDGED", f"no case generated anything: there is no {metric}"
    if metric in experiment.get("summary", {}):
        return "NOT JUDGED", f"the cases are too few for any {metric}"
    given = ", ".join(experiment["scores"]) or "none"
    return "FAIL", f"no case gave the score {metric!r}; scores: {given}"


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


def _cannot_fail(n: int, check: Check) -> str:
    """Why no outcome at all would fail, if so: such a bar passes nobody."""
    if check.metric != "pass_rate":
        return ""
    if check.bar == 0:
        return "no pass rate is below 0: give a higher bar"
    if check.rule == "significant" and wilson(0, n)[1] >= check.bar:
        return f"with {n} cases no result would be significantly below {check.bar:g}: run more"
    return ""


def _shown(value: float, bar: float) -> str:
    """Three decimals, or more where they would hide on which side of the bar the value is."""
    text = f"{value:.3f}"
    same = (float(text) >= bar) == (value >= bar) and (float(text) <= bar) == (value <= bar)
    return text if same else f"{value:.6g}"


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
    caveat: str | None = None,
    ended: str = "",
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
        caveat: What must be said beside PASS.
        ended: What has ended the run before its last test, if its exit code says so.
    """
    failed = [check for check in checks if check.verdict == "FAIL"]
    undecided = [check for check in checks if check.verdict == "NOT JUDGED"]
    if exit_code not in (0, 1):
        if ended:
            return "NOT JUDGED", ended
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
    also = f"; {caveat}" if caveat else ""
    return "PASS", f"{len(checks)} of {len(checks)} checks passed{also}"


def _undecided(checks: Sequence[Check], undecided: Sequence[Check]) -> str:
    """What could not be judged, and why."""
    why = dict.fromkeys(f"{check.experiment}: {check.reason}" for check in undecided)
    said = "; ".join([*why][:MAX_REASONS])
    more = f" and {len(why) - MAX_REASONS} more" if len(why) > MAX_REASONS else ""
    return f"{len(undecided)} of {len(checks)} checks could not be judged: {said}{more}"
