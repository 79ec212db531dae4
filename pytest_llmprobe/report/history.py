"""Pass rates over the runs of one model: lines for a terminal, a page with curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_llmprobe.report.baseline import Baseline
from pytest_llmprobe.report.charts import charts
from pytest_llmprobe.report.terminal import GAP, aligned, printable

PARTIAL = "*"
LEGEND = f"{PARTIAL} only part of the cases has a result, or some ended in an error"


def history(runs: Sequence[Baseline], last: int, width: int | None = None) -> list[str]:
    """A table with a row for each experiment and a column for each of the latest runs.

    Args:
        runs: Of one model, at least one.
        last: How many runs to show, the newest on the right.
        width: Columns of the terminal: runs that have no room follow below; None: all on a line.
    """
    rows = _rows(_latest(runs, last))
    room = len(runs)
    if width is not None:
        name, run = (max(len(row[column]) for row in rows) for column in (0, 1))
        room = max(1, (width - name) // (len(GAP) + run))
    lines = [printable(runs[0].model)]
    for begin in range(1, len(rows[0]), room):
        lines += aligned([[row[0], *row[begin : begin + room]] for row in rows], left=(0,))
    return [*lines, LEGEND] if _has_partial(rows) else lines


def history_page(models: Mapping[str, Sequence[Baseline]], last: int) -> str:
    """The same tables on a page that needs no network, with a curve for each experiment.

    Args:
        models: Runs by model, at least one of each.
        last: As ``history``.
    """
    from pytest_llmprobe.report.html import page_environment, page_style

    sections = []
    for model in sorted(models):
        runs = _latest(models[model], last)
        rows = _rows(runs)
        drawn = charts({name: _points(runs, name) for name in _names(runs)})
        sections.append((model, rows, drawn, LEGEND if _has_partial(rows) else ""))
    template = page_environment().get_template("history.html.jinja")
    return template.render(sections=sections, style=page_style())


def _latest(runs: Sequence[Baseline], last: int) -> list[Baseline]:
    return sorted(runs, key=lambda run: run.timestamp)[-max(1, last) :]


def _names(runs: Sequence[Baseline]) -> list[str]:
    return sorted({name for run in runs for name in run.experiments})


def _rows(runs: Sequence[Baseline]) -> list[list[str]]:
    return [
        ["", *(run.timestamp[:10] for run in runs)],
        ["", *(run.timestamp[11:16] for run in runs)],
        ["commit", *(_commit(run) for run in runs)],
        *([name, *(_rate(run, name) for run in runs)] for name in _names(runs)),
    ]


def _has_partial(rows: Sequence[Sequence[str]]) -> bool:
    return any(PARTIAL in cell for row in rows[3:] for cell in row[1:])


def _points(runs: Sequence[Baseline], name: str) -> list[dict[str, Any]]:
    """The runs in which an experiment has a pass rate, as a curve's points."""
    measured = [(run, run.experiments[name]) for run in runs if name in run.experiments]
    return [
        {
            "value": f"{run.timestamp[5:10]} {run.timestamp[11:16]}",
            "n": one["n"],
            "pass_rate": one["pass_rate"],
            "ci95": one.get("ci95_clustered"),
        }
        for run, one in measured
        if one["pass_rate"] is not None
    ]


def _commit(run: Baseline) -> str:
    return "-" if run.commit is None else str(run.commit.get("id"))[:8]


def _rate(run: Baseline, name: str) -> str:
    experiment = run.experiments.get(name)
    if experiment is None or experiment["pass_rate"] is None:
        return "-"
    whole = experiment["reported"] >= experiment["collected"] and not experiment["errors"]
    return f"{experiment['pass_rate']:.3f}{'' if whole else PARTIAL}"
