"""What the report says about searches: the ``summary`` of an evaluation that uses ``search``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_llmprobe.report.record import Record


def search_summary(records: Iterable[Record]) -> dict[str, Any]:
    """Verdict, held-out comparison and table of configurations, for ``probe(summary=...)``.

    Args:
        records: Those of an experiment, with what the ``search`` fixture found under ``search`` of
            their params; several searches are told apart by their task or number.
    """
    found = [
        (record.task, record.params["search"]) for record in records if "search" in record.params
    ]
    if len(found) == 1:
        return dict(found[0][1])
    return {
        f"{task or number}_{key}": value
        for number, (task, result) in enumerate(found, 1)
        for key, value in result.items()
    }
