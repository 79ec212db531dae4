"""The table and the lines that a run ends with, and what makes any table of text safe to print."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Container, Mapping, Sequence
from itertools import accumulate
from os import environ
from shutil import get_terminal_size
from typing import Any

from pytest_llmprobe.report.check import Check
from pytest_llmprobe.report.gate import CHANGE, MEASURED
from pytest_llmprobe.report.record import MAX_TEXT, bounded
from pytest_llmprobe.report.summary_function import FAILED

GAP = "  "
"""What stands between two columns."""

SIGNS = {"min": ">=", "max": "<=", "max_drop": "drop <=", "max_increase": "increase <="}
"""What a value must be to its bar."""

NEARLY_ALWAYS = 0.75
"""A chance from which on passing means to be no other than a model that knows nothing."""

MAX_SAID = 80
"""Characters of a text in a summary that are printed."""

NOT_MEASURED = "not measured: "
"""How a summary's entry begins that says what is missing and how to get it."""


def table(
    experiments: Sequence[Mapping[str, Any]], checks: Sequence[Check], width: int | None = None
) -> list[str]:
    """One row an experiment: n, pass rate with its interval, chance, gate, tokens/s.

    Args:
        experiments: As the report has them.
        checks: What was judged.
        width: As ``aligned`` takes it.
    """
    rows = [["experiment", "n", "pass rate [95% CI]", "chance", "gate", "tokens/s"]]
    for experiment in experiments:
        name, (rate, chance, speed) = experiment["name"], measured(experiment)
        rows.append([name, str(experiment["n"]), rate, chance, _gate(experiment, checks), speed])
    return aligned(rows, (0, 4), width)


def measured(experiment: Mapping[str, Any]) -> tuple[str, str, str]:
    """An experiment's pass rate with its interval, its chance and its tokens/s; or a dash.

    The chance says where the interval holds it: the model shows no ability, or, where a model
    without it nearly always passes, cannot be told apart from one.
    """
    rate, (low, high) = experiment["pass_rate"], experiment["ci95_clustered"] or (0.0, 1.0)
    chance, speed = experiment["chance"], experiment["timings"]["tokens_per_s"]
    return (
        "-" if rate is None else f"{rate:.3f} [{low:.3f}, {high:.3f}]",
        "-" if chance is None else f"{chance:.3f}{_at_chance(chance, rate, low, high)}",
        "-" if speed is None else f"{speed:,.0f}",
    )


def _at_chance(chance: float, rate: float | None, low: float, high: float) -> str:
    if rate is None:
        return ""
    if chance > NEARLY_ALWAYS:
        return " (told apart)" if high < chance else " (not told apart)"
    return " (not above)" if low <= chance else ""


def with_interval(value: float, interval: Sequence[float] | None, sign: str = "") -> str:
    """A mean or a change in three digits, and its interval if there is one."""
    shown = [f"{number:{sign}.3g}" for number in (value, *(interval or ()))]
    return f"{shown[0]} [{', '.join(shown[1:])}]" if interval else shown[0]


def _gate(experiment: Mapping[str, Any], checks: Sequence[Check]) -> str:
    own = [check.as_dict() for check in checks if check.experiment == experiment["name"]]
    return gate_cell(own, experiment["n"])


def metric_name(check: Mapping[str, Any]) -> str:
    """What a check is of, told apart from others of the same score."""
    kind = check.get("kind", "min")
    return str(check["metric"]) if kind == "min" else f"{check['metric']} {kind}"


def gate_cell(checks: Sequence[Mapping[str, Any]], n: int) -> str:
    """The verdicts of one experiment's checks, each with its bar; or that it was measured."""
    shown = []
    for check in checks:
        metric, kind = check["metric"], SIGNS[check.get("kind", "min")]
        metric = "" if metric == "pass_rate" else f"{metric} "
        bar = f"{metric}{kind} {check['bar']:g}"
        shown.append(f"{check['verdict']} ({'baseline' if check['metric'] == CHANGE else bar})")
    return ", ".join(shown) or (MEASURED if n else "-")


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
        return "none" if value is None else said_in_summary(str(value), MAX_SAID) or "''"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.3f}" if 1e-3 <= abs(value) < 1e12 else f"{value:.3g}"


def said_in_summary(text: str, limit: int) -> str:
    """A text of a summary, whole if it says what to do that more is measured, else its beginning.

    A model's name or path of any length may stand in such a remedy.
    """
    return bounded(text, MAX_TEXT if text.startswith(NOT_MEASURED) else limit) or ""


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


def aligned(
    rows: Sequence[Sequence[str]], left: Container[int], width: int | None = None
) -> list[str]:
    """The lines of a table, safe to print; columns that are not ``left`` stand to the right.

    Args:
        rows: A header and what stands under it.
        left: Columns that stand to the left.
        width: Columns of the terminal; what has no room there follows below its row, each cell with
            its column's name, and a name that is wider goes on below. None: lines of any length.
    """
    safe = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*safe, strict=True)]
    ends = list(accumulate(widths, lambda end, column: end + len(GAP) + column))
    fit = len(ends) if width is None else max(1, sum(end <= width for end in ends))
    lines = []
    for row in safe:
        line = GAP.join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row[:fit], widths, strict=False))
        )
        wide = fit == 1 and width is not None and len(line.rstrip()) > width
        lines += _name_pieces(row[0], width or 0) if wide else [line.rstrip()]
        if row is not safe[0]:
            named = zip(safe[0][fit:], row[fit:], strict=True)
            lines += _below([f"{name} {cell}" for name, cell in named if cell != "-"], width)
    return lines


def _below(cells: Sequence[str], width: int | None) -> list[str]:
    """Cells of a row that had no room beside it, as many on a line as have room there."""
    lines: list[str] = []
    for cell in cells:
        joined = f"{lines[-1]}, {cell}" if lines else ""
        goes_on = bool(lines) and not lines[-1].startswith(2 * GAP)
        if goes_on and len(joined) <= (width or 0):
            lines[-1] = joined
        else:
            lines += folded(f"{GAP}{cell}", width)
    return lines


def folded(line: str, width: int | None) -> list[str]:
    """A line that is no row of a table, between words and indented where it goes on.

    A word that is wider, such as a path, stays whole: the terminal folds it so that it can be
    copied.

    Args:
        line: Safe to print.
        width: Columns of the terminal; None: lines of any length.
    """
    if width is None or len(line) <= width:
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(
        line.lstrip(),
        width,
        initial_indent=indent,
        subsequent_indent=indent + GAP,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _name_pieces(name: str, width: int) -> list[str]:
    """A name on as many lines as it needs, parted behind its own signs where it has any."""
    room = max(1, width - len(GAP))
    pieces = [""]
    for part in re.findall(r".+?(?:[/_\-\[\]:., ]|$)", name):
        if pieces[-1] and len(pieces[-1]) + len(part) > room:
            pieces.append("")
        whole = pieces.pop() + part
        pieces += [whole[start : start + room] for start in range(0, len(whole), room)]
    return [pieces[0], *(f"{GAP}{piece}" for piece in pieces[1:])]


def terminal_width() -> int | None:
    """Columns of the terminal that is written to, or as COLUMNS says; None for a file or a pipe."""
    return get_terminal_size().columns if "COLUMNS" in environ or sys.stdout.isatty() else None


def printable(text: str) -> str:
    """The text on one line without control and direction characters, which steer terminals."""
    return "".join(character if character.isprintable() else " " for character in text)
