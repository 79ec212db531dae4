"""Pass rates over the runs of one model, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_llmprobe.report.baseline import Baseline
from pytest_llmprobe.report.terminal import aligned, printable

PARTIAL = "*"


def history(runs: Sequence[Baseline], last: int) -> list[str]:
    """A table with a row for each experiment and a column for each of the latest runs.

    Args:
        runs: Of one model, at least one.
        last: How many runs to show, the newest on the right.
    """
    runs = sorted(runs, key=lambda run: run.timestamp)[-max(1, last) :]
    names = sorted({name for run in runs for name in run.experiments})
    rows = [
        ["", *(run.timestamp[:10] for run in runs)],
        ["", *(run.timestamp[11:16] for run in runs)],
        ["commit", *(_commit(run) for run in runs)],
        *([name, *(_rate(run, name) for run in runs)] for name in names),
    ]
    lines = [printable(runs[0].model), *aligned(rows, left=(0,))]
    if any(PARTIAL in cell for row in rows[3:] for cell in row[1:]):
        lines.append(f"{PARTIAL} only part of the cases has a result, or some ended in an error")
    return lines


def _commit(run: Baseline) -> str:
    return "-" if run.commit is None else str(run.commit.get("id"))[:8]


def _rate(run: Baseline, name: str) -> str:
    experiment = run.experiments.get(name)
    if experiment is None or experiment["pass_rate"] is None:
        return "-"
    whole = experiment["reported"] >= experiment["collected"] and not experiment["errors"]
    return f"{experiment['pass_rate']:.3f}{'' if whole else PARTIAL}"
