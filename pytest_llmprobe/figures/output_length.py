"""What hidden states know of the remaining tokens, in four panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array: TypeAlias = npt.NDArray[Any]
Point: TypeAlias = Mapping[str, float | None]

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#888888"  # told apart by the colour-blind too

FEWEST = 5
"""Rows without which a median is not drawn."""

MOST_BINS, MOST_NAMES = 40, 8
"""Of the histogram; of the layers in a legend, every n-th of more."""

MOST_POINTS = 5_000
"""Points of the scatter plot, every n-th of more."""


def output_length_figure(
    labels: Array,
    steps: Array,
    norms: Mapping[int, Array],
    curve: Sequence[Point],
    test: Array,
    predicted: Array,
    title: str = "",
) -> Figure:
    """Draw the remaining tokens, the states' norms, skill by layer, and a probe's predictions.

    Args:
        labels: Remaining tokens of every row [N].
        steps: Tokens before each row's in its answer [N].
        norms: For each layer the Euclidean norm of every row's state [N].
        curve: For each layer ``layer``, ``skill``, ``low``, ``high``, ``control``; see
            `experiments.output_length.skill.layer_curve`.
        test: Numbers of the rows that were held out [n].
        predicted: What the probe predicts for these [n].
        title: Above all panels.

    Returns:
        A matplotlib figure, to be shown by a notebook or saved by `files.save_figure`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    figure.suptitle(title)
    distribution, norm, skill, prediction = figure.subplots(2, 2).flat
    for axes in (distribution, norm, skill, prediction):
        axes.spines[["top", "right"]].set_visible(False)
    _draw_distribution(distribution, labels, test)
    _draw_norms(norm, steps, norms)
    _draw_skill(skill, curve)
    _draw_predictions(prediction, labels[test], predicted)
    return figure


def _draw_distribution(axes: Axes, labels: Array, test: Array) -> None:
    is_test = np.zeros(len(labels), bool)
    is_test[test] = True
    width = int(labels.max()) // MOST_BINS + 1  # whole tokens, or bins would hold unequal numbers
    axes.hist(
        [labels[~is_test], labels[is_test]],
        bins=np.arange(0, labels.max() + width + 1, width).tolist(),
        stacked=True,
        color=[BLUE, ORANGE],
        label=["trained on", "held out"],
    )
    axes.set(title="Tokens of the data", xlabel="tokens that remain", ylabel="tokens")
    axes.legend(frameon=False)


def _draw_norms(axes: Axes, steps: Array, norms: Mapping[int, Array]) -> None:
    """Median and middle half of the norms at each step."""
    from matplotlib import colormaps
    from matplotlib.ticker import LogFormatter

    at, counts = np.unique(steps, return_counts=True)
    at = at[counts >= FEWEST]
    for place, (layer, values) in enumerate(sorted(norms.items())):
        colour = colormaps["viridis"](0.9 * place / max(1, len(norms) - 1))
        quartiles = [np.quantile(values[steps == step], [0.25, 0.5, 0.75]) for step in at]
        low, median, high = np.array(quartiles).reshape(-1, 3).T
        axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
        named = place % -(-len(norms) // MOST_NAMES) == 0
        axes.plot(at, median, color=colour, label=f"layer {layer}" if named else None)
    if at.size:  # a logarithmic axis without a value cannot be drawn
        axes.set_yscale("log")
    for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        which(LogFormatter(minor_thresholds=(1.5, 0.5)))  # 20 and not 2 x 10^1
    axes.set(
        title="Size of the states: median, middle half", xlabel="step of the answer", ylabel="norm"
    )
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _draw_skill(axes: Axes, curve: Sequence[Point]) -> None:
    layers, skill, low, high, control = (
        np.array([point[name] for point in curve], np.float64)  # NaN for None: not drawn
        for name in ("layer", "skill", "low", "high", "control")
    )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.plot(layers, skill, "o-", color=BLUE, label="probe")
    axes.vlines(layers, low, high, color=BLUE)
    axes.plot(layers, control, "s--", color=GREY, label="shuffled labels")
    axes.set(title="Skill over the best guess without states", xlabel="layer", ylabel="skill")
    axes.set_xticks(layers)
    axes.legend(frameon=False)


def _draw_predictions(axes: Axes, actual: Array, predicted: Array) -> None:
    every = -(-len(actual) // MOST_POINTS)
    axes.scatter(actual[::every], predicted[::every], s=8, color=BLUE, alpha=0.25, linewidth=0)
    most = max(actual.max(), predicted.max()) * 1.03
    axes.plot([0, most], [0, most], color="black", linewidth=0.8)
    axes.set(
        title=f"Held-out tokens: mean error {np.abs(predicted - actual).mean():.1f}",
        xlabel="tokens that remain",
        ylabel="predicted",
        xlim=(0, most),
        ylim=(0, most),
    )
