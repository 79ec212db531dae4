"""The OpenAI-compatible protocol, as vLLM, SGLang, TGI, llama.cpp, Ollama and others speak it.

https://platform.openai.com/docs/api-reference: /chat/completions and /completions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pytest_llmprobe.case import Prompt, RawPrompt
from pytest_llmprobe.engine.endpoints.wire import (
    Answer,
    Call,
    Wire,
    answer_of,
    canonical,
    changed,
    finish_of,
    found,
    text_of,
    usage_of,
)
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.errors import RefusedError, RequestError, ServerError
from pytest_llmprobe.generation import FinishReason, GenerateConfig

BEYOND = ("top_k", "min_p", "repetition_penalty")
"""Not in OpenAI's own protocol; vLLM and SGLang take them. Sent only where they are asked for."""

CHAT, RAW = "/chat/completions", "/completions"

REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class OpenAIWire(Wire):
    """Requests and responses of /chat/completions, and of /completions for raw texts.

    Args:
        model: The served model's name.
        public: Whether it is OpenAI's own service, which knows max_tokens no more.
        raw: Send strings to /completions too: a base model without a chat template.
        own_ids: Whether token ids are the served model's, so that it may be sent some.
    """

    unknown = ("typical_p", "tfs", "top_a", "no_repeat_ngram_size")
    remedy = (
        " has no name in the OpenAI-compatible protocol: leave it out, or load the model in this "
        "process"
    )

    def __init__(
        self, model: str, *, public: bool = False, raw: bool = False, own_ids: bool = False
    ) -> None:
        self._model, self._raw, self._own_ids = model, raw, own_ids
        self._limit = "max_completion_tokens" if public else "max_tokens"

    def encode(self, prompt: Prompt) -> bytes:
        """Chat messages, or a text to be continued."""
        if isinstance(prompt, RawPrompt):
            if not prompt.ids:
                return canonical({"prompt": prompt.text})
            if self._own_ids:
                return canonical({"prompt": list(prompt.ids)})
            raise RequestError(
                "the prompt is given as token ids, and the server's tokenizer is not known: name "
                "it as `tokenizer` under [tool.llmprobe.models]"
            )
        if not isinstance(prompt, str):
            return canonical({"messages": [dict(message) for message in prompt]})
        if self._raw:
            return canonical({"prompt": prompt})
        return canonical({"messages": [{"role": "user", "content": prompt}]})

    def call(self, row: Row) -> Call:
        """Greedy requests carry temperature 0 and no seed."""
        config = row.config
        asked: dict[str, Any] = json.loads(bytes(row.prompt_ids))
        chat = "messages" in asked
        body = {
            "model": self._model,
            **asked,
            "temperature": config.temperature,
            self._limit if chat else "max_tokens": config.max_new_tokens,
        }
        if config.stop:
            body["stop"] = list(config.stop)
        if config.temperature > 0:
            body["seed"] = row.seed % 2**31  # several servers keep 32 bits
        for name in changed(config, ("top_p", *BEYOND)):
            body[name] = getattr(config, name)
        return Call(CHAT if chat else RAW, body)

    def stream(self, call: Call) -> ChunkStream:
        """Asks for the usage, which comes with the last event."""
        call.body["stream_options"] = {"include_usage": True}
        return ChunkStream(call.path == CHAT)

    def answer(self, response: Mapping[str, Any], config: GenerateConfig) -> Answer:
        """The only choice of a response."""
        choices = response.get("choices")
        if not isinstance(choices, list) or not choices:
            raise ServerError("the server's response holds no choices")
        if len(choices) > 1:
            raise ServerError(f"the server sent {len(choices)} answers to one request")
        reason = found(choices, 0, "finish_reason")
        withheld = found(choices, 0, "message", "refusal")
        if reason == "content_filter" or withheld:
            raise RefusedError("the server withheld the answer: content filter or refusal")
        finish = finish_of(reason, REASONS)
        message = found(choices, 0, "message")
        text = text_of(found(message, "content") if message else found(choices, 0, "text"))
        if config.stop and isinstance(found(choices, 0, "stop_reason"), str):
            finish = "stop_string"  # vLLM names the string that ended it
        counts = (found(response, "usage", f"{of}_tokens") for of in ("prompt", "completion"))
        return answer_of(response, text, finish, usage_of(*counts), config)


class ChunkStream:
    """Chunks of a streamed answer."""

    def __init__(self, chat: bool) -> None:
        self._chat = chat
        self._pieces: list[str] = []
        self._choice: dict[str, Any] = {}
        self._rest: dict[str, Any] = {}

    def add(self, event: Any) -> bool:
        """One chunk."""
        if not isinstance(event, Mapping):
            raise ServerError("the server's stream holds an event that is no JSON object")
        for key in ("model", "usage"):
            if event.get(key):
                self._rest[key] = event[key]
        choice = found(event, "choices", 0)
        for key in ("finish_reason", "stop_reason"):
            if found(choice, key) is not None:
                self._choice[key] = found(choice, key)
        piece = text_of(found(choice, "delta", "content") or found(choice, "text"))
        self._pieces.append(piece)
        return bool(piece)

    def response(self) -> dict[str, Any]:
        """As without streaming; an end that never came has no finish reason."""
        text = "".join(self._pieces)
        own = {"message": {"content": text}} if self._chat else {"text": text}
        return {"choices": [self._choice | own]} | self._rest
