"""The ladder: how far candidates are from their baseline against which way their answers went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from pytest_llmprobe.statistics.divergence import FAITHFUL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#888888"  # told apart by the colour-blind too

LEAST = FAITHFUL / 3
"""Where a divergence that is none is drawn: the scale is logarithmic."""

SPREAD = 1.96
"""Standard deviations to each side."""


@dataclass(frozen=True)
class Rung:
    """A candidate on the ladder.

    Args:
        name: The candidate's.
        kl: Mean divergence from the baseline, in nats.
        ci95: Its interval, if there is one.
        lost: Cases that the baseline passed and the candidate missed.
        gained: The other way round.
        n: Cases that both answered.
        worse: Whether the comparison of outcomes has found it worse.
    """

    name: str
    kl: float
    ci95: Sequence[float] | None
    lost: int
    gained: int
    n: int
    worse: bool

    @property
    def spread(self) -> float:
        """Half the width of the 95 % interval of lost minus gained, cases being independent."""
        change = (self.lost - self.gained) ** 2 / self.n
        return SPREAD * sqrt(self.lost + self.gained - change)


def draw_ladder(rungs: Sequence[Rung]) -> Figure:
    """Divergence on a logarithmic axis, lost minus gained above it: worse is up, farther is right.

    What was found worse is orange.

    Args:
        rungs: At least one.
    """
    from matplotlib.figure import Figure

    from pytest_llmprobe.report.terminal import printable

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.axhline(0, color=GREY, linestyle=":", linewidth=1)
    axes.set_xscale("log")
    for rung in sorted(rungs, key=lambda rung: rung.kl):
        x, y = max(rung.kl, LEAST), rung.lost - rung.gained
        colour = ORANGE if rung.worse else BLUE
        axes.plot([x, x], [y - rung.spread, y + rung.spread], color=colour, linewidth=1)
        if rung.ci95 is not None and rung.kl > FAITHFUL:
            axes.plot([max(end, LEAST) for end in rung.ci95], [y, y], color=colour, linewidth=1)
        axes.plot([x], [y], color=colour, marker="o", markersize=5)
        name = printable(rung.name if len(rung.name) <= 30 else f"...{rung.name[-27:]}")
        said = axes.annotate(
            name, (x, y), (3, 4), textcoords="offset points", fontsize=7, rotation=35
        )
        said.set_parse_math(False)
    axes.axvline(FAITHFUL, color=GREY, linestyle=":", linewidth=1)
    axes.set_xlabel(f"mean KL from the baseline, nats (up to {FAITHFUL:g}: the same)")
    axes.set_ylabel("cases lost minus gained")
    axes.margins(x=0.15)
    return figure
