"""Probe language models with pytest: what they retrieve, keep to, memorise and know.

Every name is imported when it is first used, so importing this package loads nothing else: the
pytest plugin inside it is imported in every pytest run of its environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_llmprobe.case import Case, RawPrompt
    from pytest_llmprobe.engine.engine import Engine
    from pytest_llmprobe.engine.scripted import ScriptedModel
    from pytest_llmprobe.generation import Completion, GenerateConfig, Request
    from pytest_llmprobe.models.loading import LoadedModel, load_model
    from pytest_llmprobe.suite import Suite

__all__ = [
    "Case",
    "Completion",
    "Engine",
    "GenerateConfig",
    "LoadedModel",
    "RawPrompt",
    "Request",
    "ScriptedModel",
    "Suite",
    "load_model",
]

_HOME = {
    "Case": "case",
    "Completion": "generation",
    "Engine": "engine.engine",
    "GenerateConfig": "generation",
    "LoadedModel": "models.loading",
    "RawPrompt": "case",
    "Request": "generation",
    "ScriptedModel": "engine.scripted",
    "Suite": "suite",
    "load_model": "models.loading",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
