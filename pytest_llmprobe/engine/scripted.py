"""A model whose answers a function gives: for testing evaluations and this plugin."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from pytest_llmprobe.case import Prompt, prompt_text
from pytest_llmprobe.engine.backend import Generated, OnTokens
from pytest_llmprobe.engine.planning import Row, RowSteering, common_prefix
from pytest_llmprobe.errors import RequestError, SteeringError
from pytest_llmprobe.generation import FinishReason, Steer


class ScriptedModel:
    """Answers each prompt by ``answer(prompt text)``; a token is a character.

    A given continuation loses a nat with each character from where it parts from the answer.

    Args:
        answer: Gives the whole answer; an exception that it raises is the request's error if it
            is a RequestError, else it ends the batch like an exception of a real model would.
        context_length: Most characters of prompt and answer, or None.
    """

    max_batch_size = None
    shares_prefixes = False
    thinks = False

    def __init__(self, answer: Callable[[str], str], context_length: int | None = None) -> None:
        self.answer = answer
        self.context_length = context_length
        self.info: dict[str, Any] = {"source": "scripted"}

    def encode(self, prompt: Prompt) -> list[int]:
        """The characters of the prompt's text."""
        return [ord(character) for character in prompt_text(prompt)]

    def encode_continuation(self, prompt: Prompt, continuation: str) -> tuple[list[int], list[int]]:
        """The characters of both."""
        return self.encode(prompt), [ord(character) for character in continuation]

    def steering(self, prompt: Prompt, steer: Steer) -> RowSteering:
        """There is no attention to steer."""
        raise SteeringError("a scripted model has no attention to steer")

    def generate(self, rows: Sequence[Row], on_tokens: OnTokens) -> list[Generated | RequestError]:
        """The function's answers, cut at stop strings and at max_new_tokens."""
        answers: list[Generated | RequestError] = []
        for row in rows:
            try:
                text = self.answer("".join(map(chr, row.prompt_ids)))
            except RequestError as error:
                answers.append(error)
                continue
            if row.continuation:
                answers.append(_scored(row, text))
                continue
            answers.append(cut := _cut(text, row.config.stop, row.config.max_new_tokens))
            on_tokens(len(cut.token_ids))
        return answers

    def is_out_of_memory(self, error: Exception) -> bool:
        """MemoryError, so that a script can act it."""
        return isinstance(error, MemoryError)

    def release_memory(self) -> None:
        """Nothing is held."""


def _scored(row: Row, answer: str) -> Generated:
    given = "".join(map(chr, row.continuation))
    lost = len(given) - common_prefix(given, answer)
    return Generated(
        given, row.continuation, "stop", log_likelihood=-float(lost), most_likely=not lost
    )


def _cut(text: str, stop: tuple[str, ...], max_new_tokens: int) -> Generated:
    reason: FinishReason = "stop"
    if len(text) > max_new_tokens:
        text, reason = text[:max_new_tokens], "length"
    ids = tuple(map(ord, text))
    if stop and (found := re.search("|".join(map(re.escape, stop)), text)):
        ids = ids[: found.end()]
        text, reason = text[: found.start()], "stop_string"
    return Generated(text, ids, reason)
