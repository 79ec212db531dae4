"""Bars on fidelity: on its size, since only the same weights in float32 give exactly nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_llmprobe.report.check import Check, Verdict
from pytest_llmprobe.report.fidelity_bars import MOST, checked_bars
from pytest_llmprobe.report.limits import Kind
from pytest_llmprobe.report.plan import Bar

NO_BASELINE = (
    "no distributions of a baseline to compare with: give --llmprobe-compare NAME of a run that "
    "--llmprobe-save kept"
)


def fidelity_checks(experiment: Mapping[str, Any], bar: Bar) -> list[Check]:
    """One check for each bar on fidelity of an experiment."""
    bars = checked_bars(bar.kl, bar.top1, bar.perplexity)
    return [
        check(experiment["name"], experiment.get("fidelity"), metric, limit, bar.rule)
        for metric, limit in bars.items()
    ]


def check(
    name: str, found: Mapping[str, Any] | None, metric: str, limit: float, rule: Any
) -> Check:
    """Hold a measured divergence against its bar.

    With the rule ``significant`` it fails only if the whole 95 % interval is beyond the bar.
    """
    verdict: Verdict = "NOT JUDGED"
    kind: Kind = "max" if metric in MOST else "min"
    if not found or found["kl"] is None:
        why = next(iter(found["remarks"]), NO_BASELINE) if found else NO_BASELINE
        return Check(name, metric, limit, rule, None, verdict, f"{metric}: {why}", kind)
    measure = found[metric.partition(" ")[0]]
    value = measure["increase"] if metric == "perplexity increase" else measure["mean"]
    lowest = kind == "min"
    good = value >= limit if lowest else value <= limit
    side = "below" if lowest else "above"
    if remarks := sum(found["remarks"].values()):
        verdict = "NOT JUDGED" if good else "FAIL"
        why = f"{remarks} cases were not measured whole: {next(iter(found['remarks']))}"
        reason = f"{metric} {value:.3g}, {'bar' if good else side} {limit:g}; {why}"
    elif good:
        verdict, reason = "PASS", f"{metric} {value:.3g} is not {side} {limit:g}"
    elif rule == "significant" and _reaches(measure["ci95"], limit, lowest):
        verdict = "PASS"
        reason = f"{metric} {value:.3g} is {side} {limit:g}, but not significantly"
    else:
        verdict, reason = "FAIL", f"{metric} {value:.3g} is {side} {limit:g}"
    return Check(name, metric, limit, rule, value, verdict, reason, kind)


def _reaches(interval: list[float] | None, limit: float, lowest: bool) -> bool:
    if interval is None:
        return False
    return interval[1] >= limit if lowest else interval[0] <= limit
