"""A run's report as markdown, for a pull request or a job's summary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_llmprobe.report import comparison_text
from pytest_llmprobe.report.comparison import Comparison
from pytest_llmprobe.report.comparison_pairs import ComparedExperiment, Flip
from pytest_llmprobe.report.gate import MEASURED
from pytest_llmprobe.report.record import bounded
from pytest_llmprobe.report.self_check_text import self_check_lines, self_check_warning
from pytest_llmprobe.report.terminal import measured, printable, remarks, summaries

HEADER = ("experiment", "n", "pass rate [95% CI]", "chance", "errors", "gate", "tokens/s")

MAX_SIZE = 60_000
"""Characters after which no more flipped cases are shown: a comment on GitHub holds 65,536."""

MAX_FLIPS, MAX_LINES = 20, 40
"""Flipped cases of one experiment, and remarks of one kind, that are shown."""

MAX_LINE = 200
"""Characters of a name, an answer or a remark that are shown."""

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
        plain_text(reason),
    ]
    if report["status"] != "complete":
        blocks.append("**The run was interrupted: not all of its cases have a result.**")
    if comparison is not None:
        blocks += _compared(comparison)
    experiments, checked = report["experiments"], report.get("self_check")
    blocks += ["### Experiments", _table([HEADER, *map(_row, experiments)])]
    blocks += _list([*summaries(experiments), *remarks(experiments), *self_check_lines(checked)])
    if warning := self_check_warning(checked):
        blocks.append(f"**{plain_text(warning)}**")
    room = MAX_SIZE - sum(map(len, blocks))
    flips = [block for e in comparison.experiments for block in _flips(e)] if comparison else []
    for block in flips:
        room -= len(block)
        if room < 0:
            blocks.append("More cases changed than fit here: see the HTML report.")
            break
        blocks.append(block)
    return "\n\n".join([*(block for block in blocks if block), _run(report)]) + "\n"


def _row(experiment: Mapping[str, Any]) -> list[str]:
    rate, chance, speed = measured(experiment)
    gate = ", ".join(map(_check, experiment["gate"])) or (MEASURED if experiment["n"] else "-")
    errors = str(experiment["errors"] or "-")
    return [experiment["name"], str(experiment["n"]), rate, chance, errors, gate, speed]


def _check(check: Mapping[str, Any]) -> str:
    metric = "" if check["metric"] == "pass_rate" else f"{check['metric']} "
    return f"{check['verdict']} ({metric}>= {check['bar']:g})"


def _compared(comparison: Comparison) -> list[str]:
    verdict, reason = comparison.verdict
    blocks = [
        f"### {MARKS[verdict]} Compared with {plain_text(comparison.first)}: {verdict}",
        plain_text(reason),
    ]
    if comparison.remarks:
        blocks += ["**Cannot be compared:**", *_list(comparison.remarks)]
    rows = map(comparison_text.cells, comparison.experiments)
    blocks.append(_table([comparison_text.HEADER, *rows]))
    said = [f"{e.name}: {n}" for e in comparison.experiments for n in comparison_text.notes(e)]
    return [*blocks, *_list(said), *_list(comparison_text.differences(comparison))]


def _flips(experiment: ComparedExperiment) -> list[str]:
    found = []
    for what, flips in (("lost", experiment.lost), ("gained", experiment.gained)):
        if flips:
            title = f"{plain_text(experiment.name)}: {what} {len(flips)}"
            rows = [("case", "before", "now"), *map(_flip, flips[:MAX_FLIPS])]
            more = f"\n\nand {len(flips) - MAX_FLIPS} more" if len(flips) > MAX_FLIPS else ""
            body = f"{_table(rows)}{more}"
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
    if not lines:
        return []
    shown = [f"- {plain_text(line)}" for line in lines[:MAX_LINES]]
    more = [f"- and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
    return ["\n".join([*shown, *more])]


def _table(rows: Iterable[Sequence[str]]) -> str:
    header, *body = [[plain_text(cell) for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain_text(text: str) -> str:
    """Text that GitHub and GitLab show as it is, on one line, at most ``MAX_LINE`` characters.

    Control, direction and lone surrogate characters become spaces. Every ASCII character that could
    mean something to markdown, HTML, formulas or links becomes a character reference; what would
    mention a person or an issue is broken by an empty comment, because mentions are looked for
    after references are read.
    """
    shown = bounded(printable(text).strip(), MAX_LINE) or ""
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
