"""Probe language models with pytest: what they retrieve, keep to, memorise and know.

A case goes through five files: `plugin/collection.py` makes it a test, `plugin/asking.py` asks for
its unit, `engine/engine.py` has the model answer, `plugin/outcomes.py` puts a record of it on the
test's report, `plugin/recorder.py` keeps records, has them judged and writes the run's report. All
of them are handed one object, made when collection ends: the Run, `plugin/run.py`. CONTRIBUTING.md
has the map of the whole package.

Every name is imported when it is first used, so importing this package loads nothing else: the
pytest plugin inside it is imported in every pytest run of its environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_llmprobe.case import Case, RawPrompt, Span
    from pytest_llmprobe.engine.engine import Engine
    from pytest_llmprobe.engine.scripted import ScriptedModel
    from pytest_llmprobe.generation import Completion, GenerateConfig, Request, Steer
    from pytest_llmprobe.models.loading import LoadedModel, load_model
    from pytest_llmprobe.plugin.memory_run import evaluate
    from pytest_llmprobe.plugin.trainer_callback import EvaluationCallback
    from pytest_llmprobe.suite import Suite
    from pytest_llmprobe.whitebox.influence import influence
    from pytest_llmprobe.whitebox.steering import steer

__all__ = [
    "Case",
    "Completion",
    "Engine",
    "EvaluationCallback",
    "GenerateConfig",
    "LoadedModel",
    "RawPrompt",
    "Request",
    "ScriptedModel",
    "Span",
    "Steer",
    "Suite",
    "evaluate",
    "influence",
    "load_model",
    "steer",
]

_HOME = {
    "Case": "case",
    "Completion": "generation",
    "Engine": "engine.engine",
    "EvaluationCallback": "plugin.trainer_callback",
    "GenerateConfig": "generation",
    "LoadedModel": "models.loading",
    "RawPrompt": "case",
    "Request": "generation",
    "ScriptedModel": "engine.scripted",
    "Span": "case",
    "Steer": "generation",
    "Suite": "suite",
    "evaluate": "plugin.memory_run",
    "influence": "whitebox.influence",
    "load_model": "models.loading",
    "steer": "whitebox.steering",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        from pytest_llmprobe.models.local_packages import remedy

        if (what := remedy(error)) is None:
            raise
        raise ImportError(f"{name}: {what}") from error
