"""Pictures of results; matplotlib (extra ``plots``) is imported when one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmprobe.figures.files import save_figure

if TYPE_CHECKING:
    from pytest_llmprobe.figures.output_length import output_length_figure

__all__ = ["output_length_figure", "save_figure"]


def __getattr__(name: str) -> object:
    if name != "output_length_figure":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pytest_llmprobe.figures.output_length import output_length_figure  # numpy

    return output_length_figure
