"""What a data set's answers are made of: their commonest tokens, and how some count down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_llmprobe.figures.output_length import BLUE, Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TOKENS, ANSWERS = 15, 10
"""Bars; answers that are drawn, evenly spread over their lengths."""


def answer_tokens_figure(texts: Array, samples: Array, steps: Array, labels: Array) -> Figure:
    """Draw how often each of the commonest tokens occurs, and the remaining tokens over the steps.

    Args:
        texts: Text of every row's token [N].
        samples: The answer of every row [N].
        steps: Tokens before it in the answer [N].
        labels: Tokens that remain after it [N].

    Returns:
        A matplotlib figure, to be shown by a notebook or saved by `files.save_figure`.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    common, sequences = figure.subplots(1, 2)
    for axes in (common, sequences):
        axes.spines[["top", "right"]].set_visible(False)
    names, counts = np.unique(texts, return_counts=True)
    order = np.lexsort((names, -counts))[:MOST_TOKENS]
    common.bar(range(len(order)), counts[order], color=BLUE)
    common.set_xticks(range(len(order)))
    shown = [repr(str(name))[1:-1].replace(" ", "\u2423") for name in names[order]]
    common.set_xticklabels(shown, rotation=45, ha="right", parse_math=False)
    common.set(title=f"The {len(order)} commonest of {len(names)} tokens", ylabel="times")
    numbers, lengths = np.unique(samples, return_counts=True)
    spread = np.linspace(0, len(numbers) - 1, min(ANSWERS, len(numbers))).round().astype(int)
    for place, chosen in enumerate(np.argsort(lengths, kind="stable")[spread]):
        rows = np.flatnonzero(samples == numbers[chosen])
        rows = rows[np.argsort(steps[rows])]
        colour = colormaps["viridis"](0.9 * place / max(1, len(spread) - 1))
        sequences.plot(steps[rows], labels[rows], color=colour, marker=".", markersize=3)
    sequences.set(
        title=f"{len(spread)} of {len(numbers)} answers",
        xlabel="step of the answer",
        ylabel="tokens that remain",
    )
    return figure
