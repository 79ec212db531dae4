"""From records to what the report says about each experiment."""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import chain
from statistics import fmean
from typing import Any

from pytest_llmprobe.report.fidelity import FidelityColumns
from pytest_llmprobe.report.misses import Endings
from pytest_llmprobe.report.plan import ExperimentPlan
from pytest_llmprobe.report.record import Record
from pytest_llmprobe.statistics.intervals import mean_interval, rate_interval, wilson

MAX_VALUES = 50
"""A metadata key with more values than this is an identifier, not a grouping."""


def summarise(plan: ExperimentPlan, records: Iterable[Record]) -> dict[str, Any]:
    """Counts, pass rate, failures, scores, timings, breakdowns and the experiment's own summary.

    The records, one per reported case and sorted by id, are gone through once, and kept only where
    the experiment has a summary of its own.
    """
    columns, endings, judged = _Columns(), Endings(), list[Record]()
    for record in records:
        columns.add(record)
        endings.add(record)
        if plan.summary and record.outcome in ("passed", "missed"):
            judged.append(record)
    return {
        "name": plan.name,
        "n": len(columns.passed),
        "passed": columns.outcomes["passed"],
        "missed": columns.outcomes["missed"],
        "errors": columns.outcomes["error"],
        "skipped": columns.outcomes["skipped"],
        "collected": plan.collected,
        "selected": len(plan.ids),
        "reported": columns.outcomes.total(),
        "remarks": [*plan.remarks, *_one_cluster(columns)],
        "clusters": len(set(columns.clusters)),
        "allowed_drop": plan.allowed_drop,
        "against_baseline": {"recovery": None, "score": {}, **plan.against_baseline},
        "judged": plan.judged,
        "generation": dict(plan.generation),
        "chance": fmean(columns.chances) if columns.chances else None,
        **_pass_rate(columns),
        **endings.as_dict(),
        "scores": _scores(columns),
        "timings": _timings(columns),
        "by": _by(columns),
        "summary": plan.summary(judged) if plan.summary else {},
        "fidelity": columns.fidelity.as_dict(),
    }


class _Columns:
    """What is needed of the records, some numbers a case: a run may have very many."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.prompt_tokens: int | None = 0
        self.generated_tokens: int | None = 0
        self.durations, self.latencies, self.chances = array("d"), array("d"), array("d")
        self.passed: list[bool] = []
        self.clusters: list[Hashable] = []
        self.scores: dict[str, tuple[array[float], list[Hashable]]] = {}
        self.cells: dict[str, dict[str, Counter[bool]]] = defaultdict(lambda: defaultdict(Counter))
        self.fidelity = FidelityColumns()
        self._groups: dict[str, str] = {}

    def add(self, record: Record) -> None:
        self.outcomes[record.outcome] += 1
        self.prompt_tokens = _added(self.prompt_tokens, record.prompt_tokens)
        self.generated_tokens = _added(self.generated_tokens, record.generated_tokens)
        if record.generated_tokens or record.duration:  # a choice generates nothing
            waited = record.duration if record.latency_s is None else record.latency_s
            self.durations.append(record.duration)
            self.latencies.append(waited)
        if record.outcome in ("passed", "missed"):
            self._judge(record)
        if record.fidelity is not None:
            self.fidelity.add(record.id, record.fidelity, record.cluster or record.id)

    def _judge(self, record: Record) -> None:
        passed = record.outcome == "passed"
        # What makes records dependent: the shared haystack or prompt, else nothing but themselves.
        group = record.cluster
        cluster = self._groups.setdefault(group, group) if group else len(self.passed)
        self.passed.append(passed)
        self.clusters.append(cluster)
        if record.chance is not None:
            self.chances.append(record.chance)
        for name, value in record.scores.items():
            values, clusters = self.scores.setdefault(name, (array("d"), []))
            values.append(value)
            clusters.append(cluster)
        fields = {"task": record.task, "size": record.size}  # trials are interchangeable
        for key, value in chain(fields.items(), record.params.items()):
            cells = self.cells[key]
            if isinstance(value, str | int | float) and len(cells) <= MAX_VALUES:
                cells[str(value)][passed] += 1


def _added(total: int | None, count: int | None) -> int | None:
    """A sum of which one part may be unknown: then it is, too."""
    return None if total is None or count is None else total + count


def _pass_rate(columns: _Columns) -> dict[str, Any]:
    passed = columns.passed
    if not passed:
        return {"pass_rate": None, "ci95": None, "ci95_clustered": None}
    return {
        "pass_rate": sum(passed) / len(passed),
        "ci95": list(wilson(sum(passed), len(passed))),
        "ci95_clustered": list(rate_interval(passed, columns.clusters)),
    }


def _one_cluster(columns: _Columns) -> list[str]:
    n, clusters = len(columns.passed), len(set(columns.clusters))
    if clusters != 1 or n == 1:
        return []
    return [
        f"all {n} cases share the beginning of one prompt: the interval is that of independent "
        "cases, and says nothing of other prompts"
    ]


def _scores(columns: _Columns) -> dict[str, Any]:
    scores = {}
    for name, (values, clusters) in columns.scores.items():
        interval = mean_interval(values, clusters)
        ends = list(interval) if interval else None
        scores[name] = {"mean": fmean(values), "ci95": ends, "n": len(values)}
    return scores


def _timings(columns: _Columns) -> dict[str, Any]:
    generation_s, generated = sum(columns.durations), columns.generated_tokens
    latencies = sorted(columns.latencies)
    return {
        "generation_s": generation_s,
        "p50_s": _percentile(latencies, 0.5),
        "p95_s": _percentile(latencies, 0.95),
        "prompt_tokens": columns.prompt_tokens,
        "generated_tokens": generated,
        "tokens_per_s": generated / generation_s if generated and generation_s > 1e-9 else None,
    }


def _percentile(ordered: Sequence[float], q: float) -> float | None:
    """The smallest value that at least a fraction ``q`` of all values do not exceed."""
    return ordered[math.ceil(q * len(ordered)) - 1] if ordered else None


def _by(columns: _Columns) -> dict[str, Any]:
    """Pass rate for each value of each metadata key that tells cases apart."""
    return {
        key: {
            value: {"n": found.total(), "pass_rate": found[True] / found.total()}
            for value, found in cells.items()
        }
        for key, cells in columns.cells.items()
        if 1 < len(cells) <= MAX_VALUES
    }
