"""Displacement and direction together: is a candidate the same, different, or different and worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.statistics.divergence import FAITHFUL
from pytest_llmprobe.statistics.paired import mcnemar_power

if TYPE_CHECKING:
    from pytest_llmprobe.report.comparison import Comparison
    from pytest_llmprobe.report.comparison_pairs import ComparedExperiment

SAME, NOT_WORSE, WORSE = "the same", "different, not worse", "different and worse"
UNKNOWN = "different, direction not known"
"""No outcomes stand beside the divergence."""

POWER, MOST_CASES = 0.8, 1_000_000


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
    """How many more cases would decide if the losses seen were the rate."""
    if lost <= gained:
        return ""
    needed = cases_needed((lost - gained) / n, (lost + gained) / n)
    if needed is None:
        return ": a loss so small needs more than a million cases to be told from none"
    if needed <= n:
        return ": a loss that these cases could have told from none, by chance or not"
    return (
        f": if that were the rate, {needed - n} more cases would tell it from chance (80 % of times)"
    )


def cases_needed(change: float, discordance: float, level: float = 0.05) -> int | None:
    """Cases on which the exact paired test most likely finds a change of the pass rate.

    Args:
        change: Of the pass rate, above 0.
        discordance: Share of cases that flip, at least as large.
        level: Of the test.

    Returns:
        The number, within a hundredth; None if it is above a million.
    """
    low, high = 1, 16
    while mcnemar_power(high, change, discordance, level) < POWER:
        low, high = high, 2 * high
        if high > MOST_CASES:
            return None
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        enough = mcnemar_power(middle, change, discordance, level) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high
