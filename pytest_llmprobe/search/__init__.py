"""Which generation parameters serve a model best on some data: spaces, tasks, search, estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.search.rows import read_rows
from pytest_llmprobe.search.scorers import ExactMatch, RegexNumber, Rouge
from pytest_llmprobe.search.space import PRESETS
from pytest_llmprobe.search.task import SearchTask
from pytest_llmprobe.search.tuner import SearchResult, search, search_summary

if TYPE_CHECKING:
    from pytest_llmprobe.search.estimator import GenerationEstimator

__all__ = [
    "PRESETS",
    "ExactMatch",
    "GenerationEstimator",
    "RegexNumber",
    "Rouge",
    "SearchResult",
    "SearchTask",
    "read_rows",
    "search",
    "search_summary",
]


def __getattr__(name: str) -> object:
    if name != "GenerationEstimator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from pytest_llmprobe.search.estimator import GenerationEstimator
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "sklearn":
            raise
        raise SettingsError(
            "GenerationEstimator needs scikit-learn: pip install 'pytest-llmprobe[search]'"
        ) from None
    return GenerationEstimator
