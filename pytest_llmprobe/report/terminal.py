"""The table and the lines that a run ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_llmprobe.report.gate import CHANGE, Check
from pytest_llmprobe.report.record import bounded
from pytest_llmprobe.report.summary_function import FAILED


def table(experiments: Sequence[Mapping[str, Any]], checks: Sequence[Check]) -> list[str]:
    """One line an experiment: n, pass rate with its interval, chance, gate, tokens/s."""
    header = ["experiment", "n", "pass rate [95% CI]", "chance", "gate", "tokens/s"]
    rows = [[*_row(e), _gate(e["name"], checks), _speed(e["timings"])] for e in experiments]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        first, *rest = (
            cell.ljust(width) if column in (0, 4) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *rest]).rstrip())
    return lines


def _row(experiment: Mapping[str, Any]) -> list[str]:
    rate, interval = experiment["pass_rate"], experiment["ci95_clustered"]
    shown = "-" if rate is None else f"{rate:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
    chance = "-" if experiment["chance"] is None else f"{experiment['chance']:.3f}"
    return [printable(experiment["name"]), str(experiment["n"]), shown, chance]


def _gate(name: str, checks: Sequence[Check]) -> str:
    shown = []
    for check in checks:
        if check.experiment == name:
            metric = "" if check.metric == "pass_rate" else f"{printable(check.metric)} "
            bar = "baseline" if check.metric == CHANGE else f"{metric}>= {check.bar:g}"
            shown.append(f"{check.verdict} ({bar})")
    return ", ".join(shown) or "-"


def _speed(timings: Mapping[str, Any]) -> str:
    return "-" if timings["tokens_per_s"] is None else f"{timings['tokens_per_s']:,.0f}"


def summaries(experiments: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the experiments' own summaries say in one number or word; tables are in the report."""
    lines = failed_summaries(experiments)
    for experiment in experiments:
        parts = [
            f"{key.replace('_', ' ')} {_said(value)}"
            for key, value in experiment["summary"].items()
            if key != FAILED and not isinstance(value, dict | list)
        ]
        if parts:
            lines.append(f"{experiment['name']}: {', '.join(parts)}")
    return [printable(line) for line in lines]


def _said(value: str | float | bool | None) -> str:
    if value is None or isinstance(value, bool | str):
        return "none" if value is None else bounded(str(value), 80) or "''"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.3f}" if 1e-3 <= abs(value) < 1e12 else f"{value:.3g}"


def failed_summaries(experiments: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which experiments' own summaries could not be computed, and why."""
    return [
        f"{experiment['name']}: the summary failed: {experiment['summary'][FAILED]}"
        for experiment in experiments
        if FAILED in experiment["summary"]
    ]


def remarks(experiments: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the table does not show: errors, skips, cases that never reported or were left out."""
    lines = []
    for experiment in experiments:
        parts = [
            f"{count} {what}"
            for count, what in (
                (experiment["errors"], "in error"),
                (experiment["skipped"], "skipped"),
                (experiment["selected"] - experiment["reported"], "selected but never ran"),
                (experiment["collected"] - experiment["selected"], "deselected"),
            )
            if count
        ]
        if parts:
            lines.append(f"{experiment['name']}: {', '.join(parts)}")
        lines += [f"{experiment['name']}: {remark}" for remark in experiment["remarks"]]
    return [printable(line) for line in lines]


def printable(text: str) -> str:
    """The text on one line without control and direction characters, which steer terminals."""
    return "".join(character if character.isprintable() else " " for character in text)
