"""A search over generation parameters: every configuration, and what held-out rows say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.figures.output_length import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, ROW = 10.0, 0.25
"""Inches of the figure, and of one configuration."""

MOST_NAMED = 60
"""Configurations that are named; of more only the best and the default."""


def search_figure(found: Mapping[str, Any], title: str = "") -> Figure:
    """Draw the score of every configuration, and the best one beside the default on other rows.

    Args:
        found: What `SearchResult.as_dict` gives, or the summary of an experiment that searches.
        title: Above both panels.

    Returns:
        A matplotlib figure, to be shown by a notebook or saved by `files.save_figure`. The best
        configuration is blue, the default orange; lines are 95 % intervals.
    """
    from matplotlib.figure import Figure

    sign = 1 if found.get("greater_is_better", True) else -1
    ordered = sorted(found["configurations"], key=lambda one: sign * one["mean"])
    height = 1.5 + ROW * max(6, min(len(ordered), MOST_NAMED))
    figure = Figure(figsize=(WIDE, height), layout="constrained")
    figure.suptitle(
        f"{title}\n{found['verdict']}" if title else found["verdict"], fontsize="medium"
    )
    tried, held_out = figure.subplots(1, 2, width_ratios=(3, 1))
    for axes in (tried, held_out):
        axes.spines[["top", "right"]].set_visible(False)
    _draw_tried(tried, ordered, found)
    _draw_held_out(held_out, found)
    return figure


def _colour(found: Mapping[str, Any], label: str) -> str:
    return {found["default"]: ORANGE, found["best"]: BLUE}.get(label, GREY)


def _draw_tried(axes: Axes, ordered: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> None:
    named = []
    for place, one in enumerate(ordered):
        colour = _colour(found, one["value"])
        if one["ci95"]:
            axes.plot(one["ci95"], [place, place], color=colour, linewidth=1.5)
        axes.plot([one["mean"]], [place], "o", color=colour)
        if len(ordered) <= MOST_NAMED or colour != GREY:
            named.append((place, one["value"]))
    places, names = zip(*named, strict=True)
    axes.set_yticks(places, names, fontsize="small")
    axes.set(title=f"{found['search_rows']} rows searched on [95 %]", xlabel="score")


def _draw_held_out(axes: Axes, found: Mapping[str, Any]) -> None:
    names, scores = ("default", "best"), (found["held_out_default"], found["held_out_best"])
    bars = axes.bar(names, scores, color=[ORANGE, BLUE])
    axes.bar_label(bars, fmt="%.3f")
    axes.set(title=f"{found['held_out_rows']} held-out rows", ylabel="score")
    axes.margins(y=0.15)
