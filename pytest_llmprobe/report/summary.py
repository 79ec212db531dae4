"""From records to what the report says about each experiment."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain
from statistics import fmean
from typing import Any

from pytest_llmprobe.report.plan import ExperimentPlan
from pytest_llmprobe.report.record import Record
from pytest_llmprobe.statistics.intervals import mean_interval, rate_interval, wilson

MAX_VALUES = 50
"""A metadata key with more values than this is an identifier, not a grouping."""


def summarise(plan: ExperimentPlan, records: Sequence[Record]) -> dict[str, Any]:
    """Counts, pass rate with intervals, scores, timings, breakdowns and its own summary.

    Args:
        plan: What was to run.
        records: One per case that was reported, sorted by id.
    """
    counts = Counter(record.outcome for record in records)
    judged = [record for record in records if record.outcome in ("passed", "missed")]
    chances = [record.chance for record in judged if record.chance is not None]
    return {
        "name": plan.name,
        "n": len(judged),
        "passed": counts["passed"],
        "missed": counts["missed"],
        "errors": counts["error"],
        "skipped": counts["skipped"],
        "collected": plan.collected,
        "selected": len(plan.ids),
        "reported": len(records),
        "remarks": list(plan.remarks),
        "generation": dict(plan.generation),
        "chance": fmean(chances) if chances else None,
        **_pass_rate(judged),
        "scores": _scores(judged),
        "timings": _timings(records),
        "by": _by(judged),
        "summary": plan.summary(judged) if plan.summary else {},
    }


def _cluster(record: Record) -> str:
    """What makes records dependent: the shared haystack, else nothing but themselves."""
    return record.group or record.id


def _pass_rate(judged: Sequence[Record]) -> dict[str, Any]:
    if not judged:
        return {"pass_rate": None, "ci95": None, "ci95_clustered": None}
    passed = [record.outcome == "passed" for record in judged]
    return {
        "pass_rate": sum(passed) / len(passed),
        "ci95": list(wilson(sum(passed), len(passed))),
        "ci95_clustered": list(rate_interval(passed, [_cluster(record) for record in judged])),
    }


def _scores(judged: Sequence[Record]) -> dict[str, Any]:
    values: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for record in judged:
        for name, value in record.scores.items():
            values[name].append((value, _cluster(record)))
    scores = {}
    for name, pairs in values.items():
        numbers, clusters = [value for value, _ in pairs], [cluster for _, cluster in pairs]
        interval = mean_interval(numbers, clusters)
        scores[name] = {
            "mean": fmean(numbers),
            "ci95": list(interval) if interval else None,
            "n": len(numbers),
        }
    return scores


def _timings(records: Sequence[Record]) -> dict[str, Any]:
    answered = [record for record in records if record.generated_tokens]
    generation_s = sum(record.duration for record in answered)
    durations = sorted(r.duration if r.latency_s is None else r.latency_s for r in answered)
    generated = sum(record.generated_tokens for record in records)
    return {
        "generation_s": generation_s,
        "p50_s": _percentile(durations, 0.5),
        "p95_s": _percentile(durations, 0.95),
        "prompt_tokens": sum(record.prompt_tokens for record in records),
        "generated_tokens": generated,
        "tokens_per_s": generated / generation_s if generation_s > 1e-9 else None,
    }


def _percentile(ordered: Sequence[float], q: float) -> float | None:
    """The smallest value that at least a fraction ``q`` of all values do not exceed."""
    if not ordered:
        return None
    return ordered[math.ceil(q * len(ordered)) - 1]


def _by(judged: Sequence[Record]) -> dict[str, Any]:
    """Pass rate for each value of each metadata key that tells cases apart."""
    cells: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for record in judged:
        fields = {"task": record.task, "size": record.size}  # trials are interchangeable
        for key, value in chain(fields.items(), record.params.items()):
            if isinstance(value, str | int | float):
                cells[key][str(value)].append(record.outcome == "passed")
    return {
        key: {
            value: {"n": len(passed), "pass_rate": sum(passed) / len(passed)}
            for value, passed in values.items()
        }
        for key, values in cells.items()
        if 1 < len(values) <= MAX_VALUES
    }
