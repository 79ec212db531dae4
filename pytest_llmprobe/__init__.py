"""Probe language models with pytest: what they retrieve, keep to, memorise and know.

Importing this package loads no torch; names that need it are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmprobe.case import Case
from pytest_llmprobe.generation import Completion, GenerateConfig, Request
from pytest_llmprobe.suite import Suite

if TYPE_CHECKING:
    from pytest_llmprobe.engine import Engine, ScriptedModel
    from pytest_llmprobe.models.loading import LoadedModel, load_model

__all__ = [
    "Case",
    "Completion",
    "Engine",
    "GenerateConfig",
    "LoadedModel",
    "Request",
    "ScriptedModel",
    "Suite",
    "load_model",
]

_LAZY = {
    "Engine": "pytest_llmprobe.engine",
    "ScriptedModel": "pytest_llmprobe.engine",
    "LoadedModel": "pytest_llmprobe.models.loading",
    "load_model": "pytest_llmprobe.models.loading",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
