"""The table and the lines that a run ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_llmprobe.report.gate import Check


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
            shown.append(f"{check.verdict} ({metric}>= {check.bar:g})")
    return ", ".join(shown) or "-"


def _speed(timings: Mapping[str, Any]) -> str:
    return "-" if timings["tokens_per_s"] is None else f"{timings['tokens_per_s']:,.0f}"


def remarks(experiments: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the table does not show: errors, skips, cases that never reported."""
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
            lines.append(f"{printable(experiment['name'])}: {', '.join(parts)}")
    return lines


def printable(text: str) -> str:
    """The text on one line without control and direction characters, which steer terminals."""
    return "".join(character if character.isprintable() else " " for character in text)
