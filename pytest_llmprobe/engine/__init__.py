"""Requests to completions: planning, batched generation, sampling."""

from pytest_llmprobe.engine.engine import Engine
from pytest_llmprobe.engine.meter import Progress
from pytest_llmprobe.engine.scripted import ScriptedModel

__all__ = ["Engine", "Progress", "ScriptedModel"]
