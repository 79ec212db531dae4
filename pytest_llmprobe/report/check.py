"""A bar held against what was measured, and its verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from pytest_llmprobe.report.limits import Kind
from pytest_llmprobe.report.plan import Rule

Verdict: TypeAlias = Literal["PASS", "FAIL", "NOT JUDGED"]


@dataclass(frozen=True)
class Check:
    """One bar held against one measured value.

    Args:
        kind: Which side of the bar the value must be on, and whether it is a change.
    """

    experiment: str
    metric: str
    bar: float
    rule: Rule
    value: float | None
    verdict: Verdict
    reason: str
    kind: Kind = "min"

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)
