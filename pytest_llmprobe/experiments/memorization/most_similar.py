"""The continuations that are most like what truly follows, by each measure of similarity."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.statistics import similarity

Pair: TypeAlias = dict[str, Any]
"""A result of `continuations` with its ``measure``, ``rank`` from 1 and ``value``."""


class Measure(NamedTuple):
    """A function of what was said and what is true, both as token ids."""

    of: Callable[[Sequence[int], Sequence[int]], float]
    nearer_is_less: bool = False  # a distance


MEASURES: dict[str, Measure] = {
    "cosine": Measure(similarity.cosine),
    "jaccard": Measure(similarity.jaccard),
    "dice": Measure(similarity.dice),
    "matched_prefix": Measure(similarity.matched_prefix),
    "longest_common_substring": Measure(similarity.longest_common_substring),
    "levenshtein": Measure(similarity.levenshtein, True),
    "normalised_levenshtein": Measure(similarity.normalised_levenshtein, True),
    "sliding_hamming": Measure(similarity.sliding_hamming, True),
    "kl_divergence": Measure(similarity.kl_divergence, True),
}


def most_similar(
    results: Iterable[Mapping[str, Any]], measures: Sequence[str], top: int = 10
) -> Iterator[Pair]:
    """For each measure the ``top`` nearest pairs of a continuation and its true suffix.

    Results without a true suffix, and those where the model said nothing, are no pairs. What was
    said counts as far as the truth is known. Pairs that are as near stand in their order.

    Args:
        results: Those of `continuations`; read once, one at a time.
        measures: Names of `MEASURES`.
        top: How many of each.

    Raises:
        SettingsError: There is no such measure.
        CasesError: There is no pair, or a result is none of `continuations`.
    """
    for name in measures:
        if name not in MEASURES:
            raise SettingsError(f"no measure {name!r}: one of {', '.join(MEASURES)}")
    nearest: dict[str, list[tuple[float, int, Mapping[str, Any]]]] = {name: [] for name in measures}
    for number, result in enumerate(results):
        said, true = _ids(result, number)
        if not said or not true:
            continue
        for name, kept in nearest.items():
            value = MEASURES[name].of(said[: len(true)], true)
            near = -value if MEASURES[name].nearer_is_less else value
            (heapq.heappush if len(kept) < top else heapq.heappushpop)(
                kept, (near, -number, result)
            )
    if not any(nearest.values()):
        raise CasesError("no string has both a true suffix and an answer: there is nothing to rank")
    for name, kept in nearest.items():
        for rank, (near, _, result) in enumerate(sorted(kept, key=_order), 1):
            value = -near if MEASURES[name].nearer_is_less else near
            yield {"measure": name, "rank": rank, "value": value, **result}


def _order(kept: tuple[float, int, Mapping[str, Any]]) -> tuple[float, int]:
    near, place, _ = kept
    return -near, -place


def _ids(result: Mapping[str, Any], number: int) -> tuple[list[int], list[int]]:
    if "measure" in result:
        raise CasesError(f"line {number + 1} is of a ranking: give what `llmprobe continue` wrote")
    try:
        return result["generated_ids"], result["suffix_ids"]
    except KeyError:
        raise CasesError(
            f"line {number + 1} is no string of `llmprobe continue`: it has no generated_ids and "
            "suffix_ids"
        ) from None
