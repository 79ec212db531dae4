"""What a sweep over Delta shows: pass rates, flips against no steering, what predicts success.

Follows the GUIDE paper (arXiv 2409.19001). Pure functions of judged records, for an eval file's own
``summarise``; what they return is ready for JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from pytest_llmprobe.statistics.intervals import wilson
from pytest_llmprobe.statistics.paired import change_interval, clustered_mcnemar
from pytest_llmprobe.statistics.ranking import roc_auc, roc_auc_interval
from pytest_llmprobe.statistics.tables import Judged, curve, heat_map

PREDICTORS = ("influence", "rollout", "raw_attention", "inverse_length")
"""Scores of an unsteered case that may tell whether it passes; higher should mean that it does."""


class SteeredRecord(Judged, Protocol):
    """What is read of a record, besides what the tables read."""

    @property
    def id(self) -> str:
        """The test's node id; that of a case in a sweep ends in its Delta."""

    @property
    def group(self) -> str | None:
        """What cases with one text have in common."""

    @property
    def size(self) -> Any:
        """Length bin of its text."""


def steering_summary(records: Sequence[SteeredRecord]) -> dict[str, Any]:
    """All that a sweep shows; cases that are in none (baselines in capitals, say) by style only.

    Args:
        records: Judged records; ``delta`` and, if there are baselines, ``style`` in their params.

    Returns:
        ``by_delta``: pass rates with intervals. ``delta_by_length``: heat map. ``against_delta_0``:
        see ``against_unsteered``. ``predictors``: see ``predictive_power``. ``unsteered_by_style``:
        the pass rates of the styles without steering. Where several sets of layers were steered,
        the first three are there for each, after its name as in ``layers 0,1: by_delta``, and
        ``layers_by_length`` compares them over all Deltas but 0.
    """
    swept = [record for record in records if "delta" in record.params]
    unsteered = [record for record in records if not record.params.get("delta")]
    found: dict[str, Any] = {}
    for prefix, members in by_layers(swept).items():
        found |= {
            f"{prefix}by_delta": curve(members, "delta"),
            f"{prefix}delta_by_length": heat_map(members, rows="delta", columns="size"),
            f"{prefix}against_delta_0": against_unsteered(members),
        }
    if len(_layers(swept)) > 1:
        found["layers_by_length"] = heat_map(swept, rows="layers", columns="size")
    return found | {
        "predictors": predictive_power(swept),
        "unsteered_by_style": curve(unsteered, "style"),
    }


def by_layers(records: Sequence[SteeredRecord]) -> dict[str, Sequence[SteeredRecord]]:
    """The records of each set of layers, with all unsteered ones, after a prefix that names it.

    The prefix is empty where there is one set.
    """
    sets = _layers(records)
    if len(sets) < 2:
        return {"": records}
    return {
        f"layers {layers}: ": [r for r in records if r.params.get("layers", layers) == layers]
        for layers in sets
    }


def _layers(records: Sequence[SteeredRecord]) -> list[str]:
    """The sets of layers that were steered, in the order of the records."""
    return list(dict.fromkeys(r.params["layers"] for r in records if "layers" in r.params))


def pairs(
    records: Sequence[SteeredRecord],
) -> Iterator[tuple[float, list[tuple[SteeredRecord, SteeredRecord]]]]:
    """For each Delta but 0 its cases, each after the same case at Delta 0, where both are there."""
    unsteered = {_case(record): record for record in records if record.params["delta"] == 0}
    for delta in sorted({record.params["delta"] for record in records} - {0}):
        at_delta = (record for record in records if record.params["delta"] == delta)
        yield delta, [(unsteered[c], r) for r in at_delta if (c := _case(r)) in unsteered]


def _case(record: SteeredRecord) -> str:
    """What is the same for all Deltas of a case."""
    return record.id.rpartition("-delta-")[0]


def _clusters(compared: Sequence[tuple[SteeredRecord, SteeredRecord]]) -> list[str]:
    return [steered.group or _case(steered) for _, steered in compared]


def against_unsteered(records: Sequence[SteeredRecord]) -> list[dict[str, Any]]:
    """How each Delta changes the outcome of the same cases, against Delta 0.

    Returns:
        For each Delta ``delta``; ``n`` pairs; ``gained`` and ``lost``: cases that only the steered
        or only the unsteered model passed; ``difference`` of the pass rates with ``ci95``; ``p``:
        exact McNemar, on effective flips where cases share a text. Not corrected for the number
        of Deltas.
    """
    found = []
    for delta, compared in pairs(records):
        changes = [int(after.is_correct) - int(before.is_correct) for before, after in compared]
        if changes:
            clusters = _clusters(compared)
            found.append(
                {
                    "delta": delta,
                    "n": len(changes),
                    "gained": changes.count(1),
                    "lost": changes.count(-1),
                    "difference": sum(changes) / len(changes),
                    "ci95": list(change_interval(changes, clusters)),
                    "p": clustered_mcnemar(changes, clusters),
                }
            )
    return found


def predictive_power(records: Sequence[SteeredRecord]) -> dict[str, Any]:
    """How well the unsteered cases' predictors tell which of them pass.

    In the published data 1/length beats Influence on two of three tasks, so it is always there; the
    length bins show what a predictor knows beyond the length.

    Returns:
        For each of `PREDICTORS` ``n``, ``auc`` (area under the ROC curve; None where all cases
        passed or all missed), ``ci95`` (bootstrap over cases) and ``by_length``, the same with
        ``value`` for each length bin; or ``not measured: ...``.
    """
    unsteered = [record for record in records if record.params["delta"] == 0]
    sizes = sorted({record.size for record in unsteered if record.size is not None})
    found: dict[str, Any] = {}
    for name in PREDICTORS:
        known = [record for record in unsteered if name in record.scores]
        if not known:
            why = "this model's attention cannot be traced" if unsteered else "nothing at Delta 0"
            found[name] = f"not measured: {why}"
            continue
        by_length = [
            {"value": size, **_power([r for r in known if r.size == size], name)} for size in sizes
        ]
        found[name] = {**_power(known, name), "by_length": by_length}
    return found


def _power(records: Sequence[SteeredRecord], name: str) -> dict[str, Any]:
    passed = [record.scores[name] for record in records if record.is_correct]
    missed = [record.scores[name] for record in records if not record.is_correct]
    if not (passed and missed):
        return {"n": len(records), "auc": None, "ci95": None}
    interval = roc_auc_interval(passed, missed)
    return {"n": len(records), "auc": roc_auc(passed, missed), "ci95": list(interval)}


def win_rates(records: Sequence[SteeredRecord], score: str = "bert_score") -> list[dict[str, Any]]:
    """How often a steered answer scores higher than the unsteered one, where both passed.

    Returns:
        For each Delta ``value``; ``n`` pairs that passed and have the score; ``ties`` among them;
        ``pass_rate``: the share that the steered answer wins, ties being no wins; ``ci95``.
    """
    found = []
    for delta, compared in pairs([r for r in records if "delta" in r.params]):
        scores = [
            (before.scores[score], after.scores[score])
            for before, after in compared
            if before.is_correct and after.is_correct
            if score in before.scores and score in after.scores
        ]
        if scores:
            wins, n = sum(after > before for before, after in scores), len(scores)
            ties = sum(after == before for before, after in scores)
            interval = list(wilson(wins, n))
            found.append(
                {"value": delta, "n": n, "ties": ties, "pass_rate": wins / n, "ci95": interval}
            )
    return found
