"""Lines below the table that only some runs have, whose modules those runs alone import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_llmprobe.report.comparison import Comparison


def compared_lines(comparison: Comparison | None, width: int | None) -> list[str]:
    """What a comparison found, if there was one."""
    if comparison is None:
        return []
    from pytest_llmprobe.report.comparison_text import lines

    return lines(comparison, width)


def misses_of_failed(
    experiments: Sequence[Mapping[str, Any]], checks: Sequence[Mapping[str, Any]]
) -> list[str]:
    """The first misses of each experiment that failed a check."""
    from pytest_llmprobe.report.misses_text import failed_names, first_misses

    failed = failed_names(checks)
    return [line for e in experiments if e["name"] in failed for line in first_misses(e)]


def annotation_lines(
    experiments: Sequence[Mapping[str, Any]],
    checks: Sequence[Mapping[str, Any]],
    comparison: Comparison | None,
) -> list[str]:
    """What GitHub shows beside a pull request, where this runs there."""
    from pytest_llmprobe.report.annotations import github_annotations, is_wanted

    return github_annotations(experiments, checks, comparison) if is_wanted() else []
