"""How much of a list is right."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


def list_scores(
    items: Sequence[str], targets: Sequence[str], *, ordered: bool = True
) -> dict[str, float]:
    """How much of a list is right: precision, recall and F1 of its items.

    As sets, and with ``ordered`` also in order: there the items that count are the longest common
    subsequence, so one that is missing or too many does not put the others out of place.

    Args:
        items: What was answered, each item once.
        targets: What is required, all different, at least one.
        ordered: Also give ``ordered_precision``, ``ordered_recall`` and ``ordered_f1``.
    """
    place = {target: i for i, target in enumerate(targets)}
    found = [place[item] for item in items if item in place]
    scores = _scores("", len(found), len(items), len(targets))
    if ordered:
        rising: list[int] = []  # [k]: lowest end of a rising subsequence of k + 1 places
        for at in found:
            end = bisect_left(rising, at)
            rising[end : end + 1] = [at]
        scores |= _scores("ordered_", len(rising), len(items), len(targets))
    return scores


def _scores(prefix: str, right: int, given: int, required: int) -> dict[str, float]:
    return {
        f"{prefix}precision": right / given if given else 0.0,
        f"{prefix}recall": right / required,
        f"{prefix}f1": 2 * right / (given + required),
    }
