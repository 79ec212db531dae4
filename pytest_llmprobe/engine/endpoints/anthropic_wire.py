"""Anthropic's Messages API, version 2026-10-21: it has no temperature, top_p, top_k and no seed.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pytest_llmprobe.case import Prompt, RawPrompt
from pytest_llmprobe.engine.endpoints.wire import (
    REASONS,
    Answer,
    Asking,
    Call,
    PassingError,
    Wire,
    answer_of,
    canonical,
    count_of,
    finish_of,
    found,
    speech_of,
    text_of,
    usage_of,
)
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.errors import (
    PromptTooLongError,
    RefusedError,
    RequestError,
    ServerError,
    UnsupportedError,
)
from pytest_llmprobe.generation import FinishReason, Usage

ENDS: dict[str, FinishReason] = REASONS | {"stop_sequence": "stop_string"}

LEAST_BUDGET = 1024
"""Tokens of a thought that the service allows at least."""

AS_SERVED = Asking()


class AnthropicWire(Wire):
    """Requests and responses of /v1/messages.

    Temperature 0 is the evaluations' default; it is left to the service, as the report says.
    """

    unknown = (
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "typical_p",
        "epsilon_cutoff",
        "eta_cutoff",
        "tfs",
        "top_a",
        "repetition_penalty",
        "no_repeat_ngram_size",
        "encoder_repetition_penalty",
        "num_beams",
        "penalty_alpha",
    )
    remedy = ": Anthropic's Messages API has no settings of the sampling; leave it out"

    def __init__(self, model: str, asking: Asking = AS_SERVED) -> None:
        self._model, self.asking = model, asking

    def encode(self, prompt: Prompt) -> bytes:
        """Messages; what a system message says first is the ``system`` of the request."""
        if isinstance(prompt, RawPrompt):
            raise UnsupportedError(
                "the prompt is a text to be continued, and Anthropic's Messages API answers chat "
                "messages only"
            )
        given = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        messages = [dict(message) for message in given]
        system = []
        while messages and messages[0]["role"] == "system":
            system.append(messages.pop(0)["content"])
        if not messages:
            raise RequestError("the prompt has a system message only; add one of the user's")
        asked: dict[str, Any] = {"messages": messages}
        return canonical(asked | {"system": "\n\n".join(system)} if system else asked)

    def call(self, row: Row) -> Call:
        """A request without any setting of the sampling."""
        body = {
            "model": self._model,
            **json.loads(bytes(row.prompt_ids)),
            "max_tokens": row.room,
        }
        if self.asking.switched and row.thinking:
            budget = max(LEAST_BUDGET, row.thinking)
            body["thinking"] = {"type": "enabled", "budget_tokens": budget}
            body["max_tokens"] = budget + row.config.max_new_tokens
        elif self.asking.switched is False:
            body["thinking"] = {"type": "disabled"}
        if row.config.stop and not row.thinking:  # else cut afterwards, as everywhere
            body["stop_sequences"] = list(row.config.stop)
        return Call("/v1/messages", body)

    def stream(self, call: Call) -> EventStream:
        """Nothing more need be asked for."""
        return EventStream()

    def answer(self, response: Mapping[str, Any], row: Row) -> Answer:
        """The text blocks of a message, one after another, and its thoughts."""
        blocks, reason = response.get("content"), response.get("stop_reason")
        if not isinstance(blocks, list):
            raise ServerError("the server's response holds no content")
        if reason == "refusal":
            raise RefusedError("the model refused to answer")
        if reason == "model_context_window_exceeded":
            raise PromptTooLongError(
                "the answer reached the end of the model's context: use smaller cases or fewer "
                "max_new_tokens"
            )
        if reason == "pause_turn":
            raise ServerError("the service paused before the answer was whole (pause_turn)")
        said = speech_of({"content": blocks})
        finish = finish_of(reason, said.text or said.thought, ENDS)
        usage = _usage(response.get("usage"))
        return answer_of(response, said, finish, usage, row, self.asking.marks)


def _usage(usage: Any) -> Usage:
    """What was read from a cache or written to one is part of the prompt, too."""
    cached = (count_of(found(usage, f"cache_{what}_input_tokens")) for what in ("creation", "read"))
    prompt = count_of(found(usage, "input_tokens"))
    total = None if prompt is None else prompt + sum(count or 0 for count in cached)
    return usage_of(total, found(usage, "output_tokens"))


class EventStream:
    """Events of a streamed message."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._pieces: list[str] = []
        self._thought: list[str] = []

    def add(self, event: Any) -> bool:
        """message_start, content_block_delta, message_delta; others say nothing of the text."""
        kind = found(event, "type")
        if kind == "message_start" and isinstance(message := found(event, "message"), Mapping):
            self._message = dict(message)
            self._usage |= message.get("usage") or {}
        elif kind == "message_delta":
            self._message |= found(event, "delta") or {}
            self._usage |= found(event, "usage") or {}
        elif found(event, "delta", "type") == "text_delta":
            self._pieces.append(text_of(found(event, "delta", "text")))
            return True
        elif found(event, "delta", "type") == "thinking_delta":
            self._thought.append(text_of(found(event, "delta", "thinking")))
            return True
        return False

    def response(self) -> dict[str, Any]:
        """As without streaming.

        Raises:
            PassingError: The end never came: the connection was lost.
        """
        if self._message.get("stop_reason") is None:
            raise PassingError("the server's stream ended before its answer did")
        content = [
            {"type": "thinking", "thinking": "".join(self._thought)},
            {"type": "text", "text": "".join(self._pieces)},
        ]
        return self._message | {"content": content, "usage": self._usage}
