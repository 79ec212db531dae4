"""Heat maps and curves of an experiment's summary, as SVG; matplotlib (extra ``plots``) draws."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.figures.files import can_draw
from pytest_llmprobe.report.terminal import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, GREY = "#0072b2", "#888888"  # told apart by the colour-blind too

MAX_CELLS, MAX_POINTS, MAX_LABEL = 2_500, 60, 20
"""Cells of a heat map and points of a curve that are drawn; characters of a label."""

MAX_NUMBERED = 120
"""Cells of a heat map whose rates are written into them."""


@dataclass(frozen=True)
class Chart:
    """A drawing and the name of what it shows."""

    title: str
    svg: str


def charts(summary: Mapping[str, Any], chance: float | None = None) -> list[Chart]:
    """Draw every heat map and curve of a summary; without matplotlib none.

    Args:
        summary: What the eval file's own function gave, from a report that may be anyone's.
        chance: Pass rate of a model without the ability, or None.
    """
    drawn = [
        chart(
            _label(key.replace("_", " "), 60),
            partial(_heat_map, data)
            if isinstance(data, Mapping)
            else partial(_curve, data, chance),
        )
        for key, data in summary.items()
        if is_drawn(data)
    ]
    return [one for one in drawn if one is not None]


def _drawn(data: Any, chance: float | None) -> Figure:
    return _heat_map(data) if isinstance(data, Mapping) else _curve(data, chance)


def chart(title: str, draw: Callable[[], Figure]) -> Chart | None:
    """One drawing; None without matplotlib."""
    if not can_draw():
        return None
    import matplotlib

    settings: Any = {"svg.hashsalt": "llmprobe", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(settings):
        return Chart(title, _svg(draw()))


def is_drawn(data: object) -> bool:
    """Whether a summary's entry is a heat map or a curve."""
    return _is_heat_map(data) or _is_curve(data)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def cell_values(data: Mapping[str, Any]) -> Any:
    """What a heat map shows, a list for each row: pass rates, or means of a score."""
    return data.get("pass_rate", data.get("mean"))


def _is_heat_map(data: object) -> bool:
    if not isinstance(data, Mapping):
        return False
    rows, columns, rates = data.get("rows"), data.get("columns"), cell_values(data)
    return (
        isinstance(rows, list)
        and isinstance(columns, list)
        and isinstance(rates, list)
        and 0 < len(rows) * len(columns) <= MAX_CELLS
        and len(rates) == len(rows)
        and all(isinstance(line, list) and len(line) == len(columns) for line in rates)
        and all(rate is None or _is_number(rate) for line in rates for rate in line)
    )


def _is_curve(data: object) -> bool:
    return (
        isinstance(data, list)
        and 1 < len(data) <= MAX_POINTS
        and all(isinstance(point, Mapping) and "value" in point for point in data)
        and any(all(_is_number(p.get(key)) for p in data) for key in ("pass_rate", "mean"))
        and all(_is_interval(point.get("ci95")) for point in data)
    )


def _is_interval(data: object) -> bool:
    return data is None or (
        isinstance(data, list) and len(data) == 2 and all(_is_number(bound) for bound in data)
    )


def _label(value: object, longest: int = MAX_LABEL) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return printable(text if len(text) <= longest else f"{text[:longest]}...")


def _heat_map(data: Mapping[str, Any]) -> Figure:
    from matplotlib.figure import Figure

    rows, columns, rates = data["rows"], data["columns"], cell_values(data)
    width = 1.6 + min(6.0, max(2.0, 0.5 * len(columns)))
    figure = Figure(figsize=(width, 1.0 + min(5.0, max(1.2, 0.32 * len(rows)))))
    axes = figure.subplots()
    numbers = [[float("nan") if rate is None else rate for rate in line] for line in rates]
    is_rate = "pass_rate" in data
    known = [rate for line in rates for rate in line if rate is not None] or [0]
    low, high = (0, 1) if is_rate else (min(known), max(known))
    mesh = axes.pcolormesh(numbers, vmin=low, vmax=high, cmap="viridis", edgecolors="white")
    _name_columns(axes, [n + 0.5 for n in range(len(columns))], columns)
    axes.set_yticks([n + 0.5 for n in range(len(rows))])
    axes.set_yticklabels([_label(value) for value in rows], parse_math=False)
    axes.set_xlabel(_label(data.get("column_key", "")), parse_math=False)
    axes.set_ylabel(_label(data.get("row_key", "")), parse_math=False)
    axes.invert_yaxis()
    if len(rows) * len(columns) <= MAX_NUMBERED:
        for y, line in enumerate(rates):
            for x, rate in enumerate(line):
                if rate is not None:
                    colour = "white" if rate < low + 0.6 * (high - low) else "black"
                    place = (x + 0.5, y + 0.5)
                    shown = f"{rate:.2f}" if is_rate else f"{rate:.2g}"
                    axes.annotate(shown, place, ha="center", va="center", color=colour, fontsize=7)
    figure.colorbar(mesh, ax=axes, label="pass rate" if is_rate else "mean")
    return figure


def _curve(points: list[Mapping[str, Any]], chance: float | None) -> Figure:
    from matplotlib.figure import Figure

    is_rate = all(_is_number(point.get("pass_rate")) for point in points)
    values = [point["pass_rate" if is_rate else "mean"] for point in points]
    figure = Figure(figsize=(1.1 + min(6.0, max(2.5, 0.45 * len(points))), 2.3))
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    places = range(len(points))
    axes.plot(places, values, color=BLUE, marker="o", markersize=4)
    for place, point in zip(places, points, strict=True):
        if point.get("ci95"):
            axes.plot([place, place], point["ci95"], color=BLUE, linewidth=1)
    _name_columns(axes, places, [point["value"] for point in points])
    axes.set_ylabel("pass rate" if is_rate else "mean")
    if is_rate:
        axes.set_ylim(-0.03, 1.03)
        if chance is not None:
            axes.axhline(chance, color=GREY, linestyle=":", linewidth=1)
    return figure


def _name_columns(axes: Axes, places: Sequence[float], values: Sequence[object]) -> None:
    """Labels below; slanted where they would run into one another."""
    labels = [_label(value) for value in values]
    slanted: Any = {"rotation": 30, "ha": "right"} if max(map(len, labels)) > 6 else {}
    axes.set_xticks(places)
    axes.set_xticklabels(labels, parse_math=False, **slanted)


def _svg(figure: Figure) -> str:
    """The same figure gives the same text: no date, no random ids."""
    file = io.BytesIO()
    undated = {"Date": None, "Creator": None}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the browser has it
        figure.savefig(file, format="svg", bbox_inches="tight", metadata=undated)
    return file.getvalue().decode()
