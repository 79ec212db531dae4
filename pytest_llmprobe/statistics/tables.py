"""What an experiment says about all its records: curves, heat maps, effective context length.

Pure functions of judged records (as the report holds them), for an eval file's own ``summarise``;
what they return is ready for JSON.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from operator import itemgetter
from statistics import fmean
from typing import Any, Protocol

from pytest_llmprobe.statistics.intervals import mean_interval, wilson

FIELDS = ("task", "size", "trial", "group")
"""Keys that are fields of a record; every other key is one of its ``params``."""


class Judged(Protocol):
    """What the tables read of a record of a case that passed or missed."""

    @property
    def is_correct(self) -> bool:
        """Whether it passed."""

    @property
    def prompt_characters(self) -> int:
        """Length of its prompt, whatever the tokenizer."""

    @property
    def params(self) -> Mapping[str, Any]:
        """The case's metadata but for task, size and trial."""

    @property
    def scores(self) -> Mapping[str, float]:
        """Its measurements."""


def curve(records: Iterable[Judged], key: str) -> list[dict[str, Any]]:
    """Pass rate over the values of one key: hops, needles, threads at once.

    Args:
        records: Judged records; those without the key are left out.
        key: ``task``, ``size``, ``trial``, ``group``, or a key of the cases' metadata.

    Returns:
        ``value``, ``n``, ``pass_rate``, ``ci95`` (Wilson) for each value, numbers by their size.
    """
    return [
        {"value": value, "n": len(cell), **_rate(cell)}
        for value, cell in _by_value(records, key).items()
    ]


def score_curve(records: Iterable[Judged], key: str, score: str) -> list[dict[str, Any]]:
    """Mean of a score, named as in ``score(name, value)``, over a key's values as in ``curve``.

    Returns:
        ``value``, ``n``, ``mean`` and ``ci95`` (None if one case gives no spread) for each value.
    """
    points = []
    for value, cell in _by_value((r for r in records if score in r.scores), key).items():
        numbers = [record.scores[score] for record in cell]
        interval = mean_interval(numbers, range(len(numbers)))
        ends = list(interval) if interval else None
        points.append({"value": value, "n": len(numbers), "mean": fmean(numbers), "ci95": ends})
    return points


def heat_map(records: Iterable[Judged], rows: str, columns: str) -> dict[str, Any]:
    """Pass rate for every pair of values of two keys, each as in ``curve``.

    Returns:
        ``row_key``, ``column_key``; ``rows``, ``columns``: their values (R and C of them);
        ``n``, ``pass_rate``: one list for each row, (R, C); the rate of an empty cell is None.
    """
    by_row = {row: _by_value(cell, columns) for row, cell in _by_value(records, rows).items()}
    found = sorted({column for cells in by_row.values() for column in cells}, key=_order)
    by_row = {row: cells for row, cells in by_row.items() if cells}
    return {
        "row_key": rows,
        "column_key": columns,
        "rows": list(by_row),
        "columns": found,
        "n": [[len(cells.get(column, ())) for column in found] for cells in by_row.values()],
        "pass_rate": [
            [_rate(cells[column])["pass_rate"] if column in cells else None for column in found]
            for cells in by_row.values()
        ],
    }


def score_heat_map(
    records: Iterable[Judged], rows: str, columns: str, score: str
) -> dict[str, Any]:
    """Mean of a score for every pair of values of two keys, each as in ``curve``.

    Returns:
        As ``heat_map``, with ``mean`` in place of ``pass_rate``; of cases that have the score.
    """
    scored = [record for record in records if score in record.scores]
    found = heat_map(scored, rows, columns)
    del found["pass_rate"]
    by_row = {row: _by_value(cell, columns) for row, cell in _by_value(scored, rows).items()}
    return found | {
        "mean": [
            [
                fmean(record.scores[score] for record in cells[column]) if column in cells else None
                for column in found["columns"]
            ]
            for cells in by_row.values()
            if cells
        ]
    }


def effective_context(
    records: Iterable[Judged], threshold: float = 0.75, size: str = "size"
) -> int | None:
    """Effective context length: up to how many characters the model is surely good enough.

    Cases are taken together by their size; a size holds if the lower end of the 95 % Wilson
    interval of its pass rate is at or above ``threshold`` (Roberts, Han, Albanie, arXiv
    2411.05000, with an interval in place of the mean). Characters, and not tokens, so that models
    with different tokenizers compare. A size needs 12 cases at least for a threshold of 0.75: even
    11 of 11 have a lower end of 0.741.

    Args:
        records: Judged records.
        threshold: Lowest acceptable pass rate, between 0 and 1.
        size: Key that tells sizes apart, as for ``curve``.

    Returns:
        Characters of the shortest prompt of the largest size up to which every size holds, or
        None if the smallest does not hold.
    """
    longest = None
    cells = _by_value(records, size).values()
    shortest = [(min(record.prompt_characters for record in cell), cell) for cell in cells]
    for characters, cell in sorted(shortest, key=itemgetter(0)):
        if _rate(cell)["ci95"][0] < threshold:
            break
        longest = characters
    return longest


def _rate(cell: list[Judged]) -> dict[str, Any]:
    passed = sum(record.is_correct for record in cell)
    return {"pass_rate": passed / len(cell), "ci95": list(wilson(passed, len(cell)))}


def _by_value(records: Iterable[Judged], key: str) -> dict[Any, list[Judged]]:
    """Records with each value of a key; the values in order."""
    cells: dict[Any, list[Judged]] = defaultdict(list)
    for record in records:
        value = getattr(record, key) if key in FIELDS else record.params.get(key)
        if isinstance(value, str | int | float):
            cells[value].append(record)
    return {value: cells[value] for value in sorted(cells, key=_order)}


def _order(value: str | int | float) -> tuple[float, list[tuple[int, str]]]:
    """Numbers by size, then texts, with the numbers inside them by size."""
    if not isinstance(value, str):
        return value, []
    parts = re.split(r"(\d+)", value)  # text, number, text, ...
    return float("inf"), [
        (int(part), "") if place % 2 else (-1, part) for place, part in enumerate(parts)
    ]
