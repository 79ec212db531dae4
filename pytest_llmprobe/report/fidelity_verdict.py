"""Displacement and direction: is a candidate the same, different, or different and worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.statistics.divergence import FAITHFUL

if TYPE_CHECKING:
    from pytest_llmprobe.report.comparison import Comparison
    from pytest_llmprobe.report.comparison_pairs import ComparedExperiment

SAME, NOT_WORSE, WORSE = "the same", "different, not worse", "different and worse"
UNKNOWN = "different, direction not known"
"""No outcomes stand beside the divergence."""

POWER = 0.8

SOUGHT = 0.05
"""A loss of the pass rate that is worth knowing of."""


def conclude(experiments: Sequence[dict[str, Any]], comparison: Comparison) -> None:
    """Write each experiment's verdict into its ``fidelity``, beside what its outcomes say."""
    compared = {experiment.name: experiment for experiment in comparison.experiments}
    for experiment in experiments:
        if experiment.get("fidelity") and experiment["fidelity"]["cases"]:
            found = experiment["fidelity"]
            found["verdict"], found["reason"] = verdict(found, compared.get(experiment["name"]))


def verdict(found: Mapping[str, Any], outcomes: ComparedExperiment | None) -> tuple[str, str]:
    """The verdict of an experiment, and its reason.

    It is worse where the paired comparison of outcomes found it worse, whatever the divergence.
    """
    measured = f"KL {found['kl']['mean']:.2g}, p99 {found['kl']['p99']:.2g}"
    if found["same"]:
        return SAME, f"no token's divergence is above {FAITHFUL:g} nats"
    if outcomes is None or not outcomes.n:
        return UNKNOWN, measured
    lost, gained = len(outcomes.lost), len(outcomes.gained)
    measured += f"; {lost} lost, {gained} gained of {outcomes.n} cases"
    if outcomes.finding == "worse":
        return WORSE, f"{measured}: {outcomes.reason}"
    return NOT_WORSE, f"{measured}{_more(lost, gained, outcomes.n)}"


def _more(lost: int, gained: int, n: int) -> str:
    """How many more cases would decide if the losses seen were the rate.

    Where no more were lost than gained: how many would find a loss of ``SOUGHT``.
    """
    if lost <= gained:
        needed = cases_needed(SOUGHT, max(SOUGHT, (lost + gained) / n))
        if needed <= n:
            return ""
        return f": to find a loss of {SOUGHT:.0%} of the cases, about {needed - n} more are needed"
    needed = cases_needed((lost - gained) / n, (lost + gained) / n)
    if (
        needed <= n
    ):  # the experiment's own test, over clusters or several experiments, asks for more
        return ": too few of these are independent to tell the loss from chance"
    return f": at this rate about {needed - n} more cases would tell a loss from chance"


def cases_needed(change: float, discordance: float) -> int:
    """Cases on which the paired test finds a change of the pass rate in four runs of five.

    McNemar's test at .05, two-sided, by the normal approximation (Connor 1987, Biometrics 43:207).

    Args:
        change: Of the pass rate, above 0.
        discordance: Share of cases that flip, at least as large.
    """
    level, power = (NormalDist().inv_cdf(p) for p in (0.975, POWER))
    spread = level * sqrt(discordance) + power * sqrt(discordance - change**2)
    return ceil((spread / change) ** 2)
