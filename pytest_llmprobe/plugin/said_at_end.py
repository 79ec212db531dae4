"""Lines around the table that only some runs have, whose modules those runs alone import."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.report.misses import MAX_SHOWN
from pytest_llmprobe.report.record import bounded
from pytest_llmprobe.report.terminal import folded

if TYPE_CHECKING:
    import pytest

    from pytest_llmprobe.report.check import Check
    from pytest_llmprobe.report.comparison import Comparison
    from pytest_llmprobe.report.record import Record


def write_folded(
    terminal: pytest.TerminalReporter, line: str, width: int | None, **markup: bool
) -> None:
    """Write a line, on as many as a narrow terminal needs."""
    for part in folded(line, width):
        terminal.write_line(part, **markup)


def compared_lines(comparison: Comparison | None, width: int | None) -> list[str]:
    """What a comparison found, if there was one."""
    if comparison is None:
        return []
    from pytest_llmprobe.report.comparison_text import lines

    return lines(comparison, width)


def failed_gates(
    checks: Sequence[Check],
    experiments: Sequence[Mapping[str, Any]],
    comparison: Comparison | None,
    records: Callable[[Iterable[str]], Iterable[Record]],
    run: str | None,
) -> list[str]:
    """What failed, with the cases that show why; `failed_lines`."""
    if not any(check.verdict == "FAIL" for check in checks):
        return []
    from pytest_llmprobe.report.failed_text import failed_lines

    compared = comparison.experiments if comparison else ()
    lost = {e.name: {flip.id: bounded(flip.first, MAX_SHOWN) for flip in e.lost} for e in compared}
    if comparison is not None:
        from pytest_llmprobe.report.comparison_verdicts import SUITE

        lost[SUITE] = {name: answer for own in lost.values() for name, answer in own.items()}
    return failed_lines(checks, experiments, lost, records, run)


def annotation_lines(
    experiments: Sequence[Mapping[str, Any]],
    checks: Sequence[Mapping[str, Any]],
    comparison: Comparison | None,
) -> list[str]:
    """What GitHub shows beside a pull request, where this runs there."""
    from pytest_llmprobe.report.annotations import github_annotations, is_wanted

    return github_annotations(experiments, checks, comparison) if is_wanted() else []
