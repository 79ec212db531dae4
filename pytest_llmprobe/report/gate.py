"""Verdicts: whether each experiment reached its bar, and what that says about the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from pytest_llmprobe.report.plan import Bar, Plan, Rule

CHANGE = "change of the pass rate"
"""The metric of a check against a baseline."""

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


def judge(plan: Plan, experiments: Sequence[Mapping[str, Any]]) -> list[Check]:
    """Hold every bar of the plan against the summaries of its experiments."""
    checks = []
    for experiment in experiments:
        bar = plan[experiment["name"]].bar
        if bar is None:
            continue
        if bar.pass_rate is not None:
            rate, interval = experiment["pass_rate"], experiment["ci95_clustered"]
            checks.append(_check(experiment, bar, "pass_rate", bar.pass_rate, rate, interval))
        for name, lowest in (bar.score or {}).items():
            score = experiment["scores"].get(name, {"mean": None, "ci95": None})
            checks.append(_check(experiment, bar, name, lowest, score["mean"], score["ci95"]))
    return checks


def _check(
    experiment: Mapping[str, Any],
    bar: Bar,
    metric: str,
    lowest: float,
    value: float | None,
    interval: Sequence[float] | None,
) -> Check:
    verdict: Verdict
    errors, n, collected = experiment["errors"], experiment["n"], experiment["collected"]
    if errors:
        verdict, reason = "FAIL", f"{errors} of {n + errors} cases ended in an error"
    elif n < collected:
        verdict, reason = "NOT JUDGED", f"only {n} of {collected} cases were measured"
    elif value is None:
        verdict, reason = "FAIL", f"no case gave the score {metric!r}"
    elif value >= lowest:
        verdict, reason = "PASS", f"{metric} {_shown(value, lowest)} reaches {lowest:g}"
    elif bar.rule == "significant" and interval is not None and interval[1] >= lowest:
        verdict = "PASS"
        reason = f"{metric} {_shown(value, lowest)} is below {lowest:g}, but not significantly"
    else:
        verdict, reason = "FAIL", f"{metric} {_shown(value, lowest)} is below {lowest:g}"
    return Check(experiment["name"], metric, lowest, bar.rule, value, verdict, reason)


def _shown(value: float, lowest: float) -> str:
    """Three decimals, or more where they would hide on which side of the bar the value is."""
    text = f"{value:.3f}"
    return text if (float(text) >= lowest) == (value >= lowest) else f"{value:.6g}"


def run_verdict(
    checks: Sequence[Check], exit_code: int, failures: int, faults: Sequence[str] = ()
) -> tuple[Verdict, str]:
    """The verdict of a whole run and its reason, in agreement with pytest's exit code.

    FAIL goes with exit code 1 and with no other; PASS with 0; NOT JUDGED with all others.

    Args:
        checks: All checks.
        exit_code: What the process will exit with.
        failures: Failed tests and errors, other than misses that only count.
        faults: What else went wrong, such as a summary that could not be computed.
    """
    judged = [check for check in checks if check.verdict != "NOT JUDGED"]
    failed = [check for check in judged if check.verdict == "FAIL"]
    if exit_code == 1:
        reasons = [*(f"{check.experiment}: {check.reason}" for check in failed), *faults]
        return "FAIL", "; ".join(reasons) or f"{failures} tests failed or ended in an error"
    if exit_code != 0:
        return "NOT JUDGED", {2: "the run was interrupted"}.get(exit_code, f"exit code {exit_code}")
    if not judged:
        partial = next((check.reason for check in checks), "no experiment has a gate")
        return "NOT JUDGED", partial
    left = len(checks) - len(judged)
    passed = f"{len(judged)} of {len(checks)} checks passed"
    return "PASS", f"{passed}, {left} not judged" if left else passed
