"""Pictures of results; matplotlib (extra ``plots``) is imported when one is drawn."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pytest_llmprobe.figures.files import save_figure

if TYPE_CHECKING:
    from pytest_llmprobe.figures.output_length import output_length_figure
    from pytest_llmprobe.figures.search import search_figure

__all__ = ["output_length_figure", "save_figure", "search_figure"]

_FIGURES = ("output_length", "search")  # modules that need numpy


def __getattr__(name: str) -> object:
    module = name.removesuffix("_figure")
    if name == module or module not in _FIGURES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
