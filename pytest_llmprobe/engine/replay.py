"""In place of a model where recorded answers are scored again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_llmprobe.case import Prompt
from pytest_llmprobe.engine.backend import Backend, Generated, OnTokens
from pytest_llmprobe.engine.planning import Row, RowSteering
from pytest_llmprobe.errors import RequestError
from pytest_llmprobe.generation import Steer

NO_MODEL = "answers are replayed, and no model is loaded"


class ReplayBackend(Backend):
    """Says what the model said about itself when it answered; the engine's store answers for it."""

    def __init__(self, info: dict[str, Any]) -> None:
        self._info = info

    @property
    def info(self) -> dict[str, Any]:
        """What the model said."""
        return self._info

    def encode(self, prompt: Prompt) -> list[int]:
        """There is no tokenizer."""
        raise RequestError(NO_MODEL)

    def steering(self, prompt: Prompt, steer: Steer) -> RowSteering:
        """There is no attention to steer."""
        raise RequestError(NO_MODEL)

    def generate(self, rows: Sequence[Row], on_tokens: OnTokens) -> list[Generated | RequestError]:
        """Nothing is generated."""
        return [RequestError(NO_MODEL) for _ in rows]
