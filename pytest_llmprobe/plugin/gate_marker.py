"""The gate marker: a bar, a drop against a baseline that is allowed, or no verdict at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.report.plan import Bar, checked_drop

if TYPE_CHECKING:
    import pytest


def read_gate(node: pytest.Function) -> tuple[Bar | None, float | None, bool]:
    """The bar, the drop that is allowed, and whether the experiment may be a ground for a verdict.

    Raises:
        SettingsError: An argument is unknown or impossible, or two do not go together.
    """
    marked = node.get_closest_marker("gate")
    if marked is None:
        return None, None, True
    if marked.args:
        raise SettingsError("gate takes keyword arguments only, as in gate(pass_rate=0.9)")
    said = dict(marked.kwargs)
    judged, drop = said.pop("judge", True), said.pop("allowed_drop", None)
    if not isinstance(judged, bool):
        raise SettingsError(f"gate marker: judge={judged!r}: give True or False")
    if not judged and (said or drop is not None):
        raise SettingsError("gate marker: judge=False goes with no bar and no allowed_drop")
    if drop is not None:
        try:
            drop = checked_drop(drop)
        except SettingsError as error:
            raise SettingsError(f"gate marker: {error}") from None
    alone = not said and (drop is not None or not judged)
    return None if alone else Bar.of(said, "gate marker"), drop, judged
