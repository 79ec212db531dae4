"""A run's report as markdown, for a pull request or a job's summary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_llmprobe.report import comparison_text
from pytest_llmprobe.report.comparison import Comparison
from pytest_llmprobe.report.comparison_pairs import ComparedExperiment, Flip
from pytest_llmprobe.report.fidelity_text import HEADER as FIDELITY
from pytest_llmprobe.report.fidelity_text import fidelity_rows
from pytest_llmprobe.report.misses_text import (
    cut_off_warnings,
    failed_names,
    miss_lines,
    quoted,
)
from pytest_llmprobe.report.record import bounded
from pytest_llmprobe.report.self_check_text import self_check_lines, self_check_warning
from pytest_llmprobe.report.terminal import gate_cell, measured, printable, remarks, summaries
from pytest_llmprobe.report.weights_text import weights_lines

HEADER = ("experiment", "n", "pass rate [95% CI]", "chance", "errors", "gate", "tokens/s")

MAX_SIZE = 60_000
"""Characters after which no more cases are shown: a comment on GitHub holds 65,536."""

MAX_FLIPS, MAX_LINES = 20, 40
"""Flipped cases of one experiment, and remarks of one kind, that are shown."""

MAX_LINE, MAX_OURS = 200, 2_000
"""Characters that are shown of a name or an answer, and of a remark or a reason."""

MAX_LIST = 15_000
"""Characters of a list after which no more of its lines are shown."""

MARKS = {"PASS": "✅", "FAIL": "❌", "NOT JUDGED": "⚪"}


def markdown(report: Mapping[str, Any], comparison: Comparison | None = None) -> str:
    """The verdict, the table of experiments, and what a comparison found.

    Everything that a model, a data file or a name could have written is shown as plain text: no
    HTML, no links, no mentions, no markup, on one line.
    """
    gate = report["gate"]
    verdict, reason = gate["verdict"], gate["reason"]
    blocks = [
        f"## {MARKS.get(verdict, '')} llmprobe: {plain_text(report['model'])}: {verdict}",
        _whole(reason),
    ]
    if report["status"] != "complete":
        blocks.append("**The run was interrupted: not all of its cases have a result.**")
    if comparison is not None:
        blocks += _compared(comparison)
    if measured_rows := fidelity_rows(report["experiments"]):
        blocks += ["### Fidelity to the baseline", markdown_table([FIDELITY, *measured_rows])]
    experiments, checked = report["experiments"], report.get("self_check")
    blocks += ["### Experiments", markdown_table([HEADER, *map(_row, experiments)])]
    blocks += _list(miss_lines(experiments))
    read = weights_lines(report["model_info"])
    blocks += _list(
        [*summaries(experiments), *remarks(experiments), *read, *self_check_lines(checked)]
    )
    warnings = [*cut_off_warnings(experiments), self_check_warning(checked)]
    blocks += [f"**{_whole(warning)}**" for warning in warnings if warning]
    failed = failed_names(gate["checks"])
    misses = [block for e in experiments if e["name"] in failed for block in _first_misses(e)]
    flips = [block for e in comparison.experiments for block in _flips(e)] if comparison else []
    for what, cases in (("missed", misses), ("changed", flips)):
        blocks += _fitting(cases, what, MAX_SIZE - sum(map(len, blocks)))
    return "\n\n".join([*(block for block in blocks if block), _run(report)]) + "\n"


def _fitting(blocks: Sequence[str], what: str, room: int) -> list[str]:
    shown: list[str] = []
    for block in blocks:
        room -= len(block)
        if room < 0:
            return [*shown, f"More cases {what} than fit here: see the HTML report."]
        shown.append(block)
    return shown


def _row(experiment: Mapping[str, Any]) -> list[str]:
    rate, chance, speed = measured(experiment)
    errors = str(experiment["errors"] or "-")
    return [
        experiment["name"],
        str(experiment["n"]),
        rate,
        chance,
        errors,
        gate_cell(experiment["gate"], experiment["n"]),
        speed,
    ]


def _first_misses(experiment: Mapping[str, Any]) -> list[str]:
    if not (misses := experiment["first_misses"]):
        return []
    name = plain_text(experiment["name"])
    title = f"{name}: the first {len(misses)} of {experiment['missed']} misses"
    rows = [("case", "expected", "received", "why"), *((m["id"], *quoted(m)) for m in misses)]
    return [f"**{title}**\n\n{markdown_table(rows)}"]


def _compared(comparison: Comparison) -> list[str]:
    verdict, reason = comparison.verdict
    blocks = [
        f"### {MARKS[verdict]} Compared with {plain_text(comparison.first)}: {verdict}",
        _whole(reason),
    ]
    if comparison.prompts:
        blocks += _list([comparison.prompts])
    if comparison.remarks:
        blocks += ["**Cannot be compared:**", *_list(comparison.remarks)]
    blocks.append(markdown_table([comparison_text.HEADER, *comparison_text.rows(comparison)]))
    said = comparison_text.all_notes(comparison)
    return [*blocks, *_list(said), *_list(comparison_text.differences(comparison))]


def _flips(experiment: ComparedExperiment) -> list[str]:
    found = []
    for what, flips in (("lost", experiment.lost), ("gained", experiment.gained)):
        if flips:
            title = f"{plain_text(experiment.name)}: {what} {len(flips)}"
            rows = [("case", "before", "now"), *map(_flip, flips[:MAX_FLIPS])]
            more = f"\n\nand {len(flips) - MAX_FLIPS} more" if len(flips) > MAX_FLIPS else ""
            body = f"{markdown_table(rows)}{more}"
            found.append(f"<details><summary>{title}</summary>\n\n{body}\n\n</details>")
    return found


def _flip(flip: Flip) -> tuple[str, str, str]:
    before, now = ("(no answer)" if a is None else a for a in (flip.first, flip.second))
    return flip.id, before, now


def _run(report: Mapping[str, Any]) -> str:
    info, commit = report["model_info"], report["commit"]
    parts = [
        report["timestamp"],
        f"commit {commit['id'][:12]}{' and changes' if commit['dirty'] else ''}" if commit else "",
        *(f"{key} {info[key]}" for key in ("fingerprint", "dtype", "device") if info.get(key)),
        f"{report['timings']['total_s']:.0f} s",
    ]
    return f"<sub>{', '.join(plain_text(part) for part in parts if part)}</sub>"


def _list(lines: Sequence[str]) -> list[str]:
    shown: list[str] = []
    for line in lines[:MAX_LINES]:
        shown.append(f"- {_whole(line)}")
        if shown[1:] and sum(map(len, shown)) > MAX_LIST:
            shown.pop()
            break
    more = [f"- and {len(lines) - len(shown)} more"] if len(lines) > len(shown) else []
    return ["\n".join([*shown, *more])] if shown else []


def markdown_table(rows: Iterable[Sequence[str]]) -> str:
    """A table whose first row is its header, all of it shown as plain text."""
    header, *body = [[plain_text(cell) for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _whole(text: str) -> str:
    """A line of ours, which may end in what to do; names in it may be long."""
    return plain_text(text, MAX_OURS)


def plain_text(text: str, limit: int = MAX_LINE) -> str:
    """Text that GitHub and GitLab show as it is, on one line, at most ``limit`` characters.

    Control, direction and lone surrogate characters become spaces. Every ASCII character that could
    mean something to markdown, HTML, formulas or links becomes a character reference; what would
    mention a person or an issue is broken by an empty comment, because mentions are looked for
    after references are read.
    """
    shown = bounded(printable(text).strip(), limit) or ""
    return RISKY.sub(_reference, shown)


RISKY = re.compile(
    r"^(?P<digits>\d*)(?P<first>[-+=](?![\d.])|[.)](?=\s|$))|(?P<other>[^\w\s.,:;%/=+?'()-]|_|:(?=//)|(?<=w)\.)",
    re.ASCII | re.IGNORECASE,
)
"""What would begin a list or a heading, and what means something wherever it stands."""


def _reference(found: re.Match[str]) -> str:
    character = found["first"] or found["other"]
    if ord(character) > 127:
        return character
    broken = "<!-- -->" if character in "@#" else ""
    return f"{found['digits'] or ''}&#{ord(character)};{broken}"
