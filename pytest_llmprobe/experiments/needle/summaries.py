"""What every needle evaluation says about all its records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_llmprobe.statistics.tables import Judged, curve, effective_context


def summary(records: Sequence[Judged], *params: str) -> dict[str, Any]:
    """The effective context length, and the pass rate over each of some params of the cases."""
    curves = {param: curve(records, param) for param in params}
    return {"effective_context_characters": effective_context(records), **curves}
