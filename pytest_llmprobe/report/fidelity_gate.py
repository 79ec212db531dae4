"""Bars on fidelity: on its size, since only the same weights in float32 give exactly nothing."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.report.limits import Kind

if TYPE_CHECKING:
    from pytest_llmprobe.report.gate import Check
    from pytest_llmprobe.report.plan import Bar

MOST = ("kl", "perplexity increase")
"""Metrics whose bar is the most that is allowed."""

METRICS = (*MOST, "top1")

NO_BASELINE = (
    "no distributions of a baseline to compare with: give --llmprobe-compare NAME of a run that "
    "--llmprobe-save kept"
)


def checked_bars(kl: object, top1: object, perplexity: object) -> dict[str, float]:
    """The bars by metric, of a marker's or a table's arguments.

    Raises:
        SettingsError: One is no number in its range.
    """
    if perplexity is not None and (
        not isinstance(perplexity, Mapping) or perplexity.keys() != {"max_increase"}
    ):
        raise SettingsError(f"perplexity={perplexity!r}: give {{'max_increase': 0.02}}")
    increase = perplexity["max_increase"] if isinstance(perplexity, Mapping) else None
    given = {"kl": kl, "top1": top1, "perplexity increase": increase}
    bars = {}
    for name, bar in given.items():
        if bar is None:
            continue
        value = nan
        if isinstance(bar, int | float) and not isinstance(bar, bool):
            value = float(bar)
        if not isfinite(value) or value < 0 or (name == "top1" and value > 1):
            raise SettingsError(f"{name}={bar!r}: give a number from 0 up, of top1 at most 1")
        bars[name] = value
    return bars


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
    from pytest_llmprobe.report.gate import Check, Verdict

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
