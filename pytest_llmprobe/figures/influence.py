"""How far a span reaches: its influence on every token of a prompt, one line for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array: TypeAlias = npt.NDArray[Any]

LOWEST = 1e-6
"""Where the logarithmic axis begins at the lowest; before the span the influence is 0."""


def influence_figure(
    values: Array,
    positions: Sequence[int],
    title: str = "",
    ylabel: str = "influence",
    numbers: Sequence[int] | None = None,
) -> Figure:
    """Draw the logarithm of a span's influence over positions.

    Args:
        values: (layers + 1, T); the first row is the span itself.
        positions: Tokens of the span; each run of neighbours is a band.
        title: Above it.
        ylabel: What the values are.
        numbers: Of the layers, from 0, if these are not all.

    Returns:
        A matplotlib figure, to be shown by a notebook or saved by `files.save_figure`.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    tokens = np.sort(positions)
    runs = np.split(tokens, np.flatnonzero(np.diff(tokens) != 1) + 1) if positions else []
    for number, run in enumerate(runs):
        label = None if number else "the span"
        axes.axvspan(run[0] - 0.5, run[-1] + 0.5, color="#cccccc", linewidth=0, label=label)
    layers = values[1:]
    for layer, row in enumerate(layers):
        seen = np.where(row > 0, row, np.nan)  # zero has no logarithm: the line begins at the span
        colour = colormaps["viridis"](0.92 * layer / max(1, len(layers) - 1))
        name = layer if numbers is None else numbers[layer]
        axes.plot(seen, color=colour, linewidth=1.2, label=f"after layer {name}")
    above = layers[layers > 0]
    lowest = max(LOWEST, float(above.min())) / 1.5 if above.size else LOWEST
    axes.set(
        title=title,
        xlabel="position of the token",
        ylabel=ylabel,
        yscale="log",
        xlim=(-0.5, values.shape[1] - 0.5),
        ylim=(lowest, 1.3),
    )
    axes.legend(
        frameon=False, ncols=max(1, len(layers) // 16), loc="center left", bbox_to_anchor=(1, 0.5)
    )
    return figure
