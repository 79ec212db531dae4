"""The gate marker: a bar, alone or against a baseline, or no verdict at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.report.plan import Bar

if TYPE_CHECKING:
    import pytest


def read_gate(node: pytest.Function) -> tuple[Bar | None, bool]:
    """What the experiment must reach, and whether it may be a ground for a verdict.

    Raises:
        SettingsError: An argument is unknown or impossible, or two do not go together.
    """
    marked = node.get_closest_marker("gate")
    if marked is None:
        return None, True
    if marked.args:
        raise SettingsError("gate takes keyword arguments only, as in gate(pass_rate=0.9)")
    said = dict(marked.kwargs)
    judged = said.pop("judge", True)
    if not isinstance(judged, bool):
        raise SettingsError(f"gate marker: judge={judged!r}: give True or False")
    if not judged and said:
        raise SettingsError("gate marker: judge=False goes with no bar and no allowed_drop")
    return (Bar.of(said, "gate marker") if judged else None), judged
