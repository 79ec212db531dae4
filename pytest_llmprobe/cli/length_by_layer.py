"""The table of ``llmprobe train-length-probe --by-layer``."""

from __future__ import annotations

from pytest_llmprobe.cli.progress import Progress
from pytest_llmprobe.experiments.output_length.by_layer import Figure, skill_by_layer
from pytest_llmprobe.experiments.output_length.data_set import LengthData
from pytest_llmprobe.experiments.output_length.requests import HeldOut
from pytest_llmprobe.experiments.output_length.skill import Fit

COLUMNS = ("MAE", "R2", "skill over the mean", "over the best guess")


def layer_table(data: LengthData, fit: Fit, by: HeldOut, seed: int) -> str:
    """Guesses without states and a probe for each layer, a line each, with 95 % intervals."""
    with Progress() as progress:
        found = skill_by_layer(
            data,
            fit,
            by,
            seed=seed,
            on_progress=lambda done, total: progress.show(f"{done} of {total} probes"),
        )
    answers = len(set(data.tokens("sample_id").tolist()))
    folds = len(data.folds(by, seed=seed))
    said = f"{answers} answers in {folds} folds by {by}, {len(data)} tokens"
    lines = [
        f"{said}; [95 % intervals over answers]",
        f"{'':15}" + "".join(f"{column:>25}" for column in COLUMNS),
    ]
    for one in found:
        cells = [_cell(one.mae, 2), *(_cell(f, 3) for f in (one.r2, one.over_mean, one.over_best))]
        line = f"{one.name.replace('_', ' '):15}" + "".join(f"{cell:>25}" for cell in cells)
        lines.append(line.rstrip())
    return "\n".join(lines)


def _cell(figure: Figure | None, digits: int) -> str:
    if figure is None:
        return ""
    if figure.value is None:
        return "-"
    ends = figure.interval
    between = "" if ends is None else f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
    return f"{figure.value:.{digits}f}{between}"
