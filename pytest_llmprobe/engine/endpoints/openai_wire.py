"""The OpenAI-compatible protocol, as vLLM, SGLang, TGI, llama.cpp, Ollama and others speak it.

https://platform.openai.com/docs/api-reference: /chat/completions and /completions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_llmprobe.case import Prompt, RawPrompt
from pytest_llmprobe.engine.endpoints.wire import (
    Answer,
    Asking,
    Call,
    ErrorInsideError,
    PassingError,
    Speech,
    Wire,
    answer_of,
    canonical,
    changed,
    finish_of,
    found,
    speech_of,
    text_of,
    usage_of,
)
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.errors import RefusedError, RequestError, ServerError, UnsupportedError
from pytest_llmprobe.models.chat_text import is_prefill

BEYOND = ("top_k", "min_p", "repetition_penalty")
"""Not in OpenAI's own protocol; vLLM and SGLang take them. Sent only where they are asked for."""

AS_SERVED = Asking()

CHAT, RAW = "/chat/completions", "/completions"

SWITCHES = ("enable_thinking", "thinking")
"""What most chat templates call the switch of their thoughts; they ignore the other."""


class OpenAIWire(Wire):
    """Requests and responses of /chat/completions, and of /completions for raw texts.

    Args:
        model: The served model's name.
        public: Whether it is OpenAI's own service, which knows max_tokens no more.
        raw: Send strings to /completions too: a base model without a chat template.
        own_ids: Whether token ids are the served model's, so that it may be sent some.
        asking: How the model is asked to think.
    """

    unknown = (
        "typical_p",
        "epsilon_cutoff",
        "eta_cutoff",
        "tfs",
        "top_a",
        "no_repeat_ngram_size",
        "encoder_repetition_penalty",
        "num_beams",
        "penalty_alpha",
    )
    remedy = (
        " has no name in the OpenAI-compatible protocol: leave it out, or load the model in this "
        "process"
    )

    def __init__(
        self,
        model: str,
        *,
        public: bool = False,
        raw: bool = False,
        own_ids: bool = False,
        asking: Asking = AS_SERVED,
    ) -> None:
        self._model, self._raw, self._own_ids, self.public = model, raw, own_ids, public
        self.asking = asking
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
            if is_prefill(prompt) and self.public:
                raise UnsupportedError(
                    "the prompt's last message is the assistant's, to be gone on with, and "
                    "OpenAI's own service always begins a new one"
                )
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
            self._limit if chat else "max_tokens": row.room,
        }
        if chat:
            body |= self._template(asked["messages"])
        if config.stop and not row.thinking:  # a server would stop at those of a thought, too
            body["stop"] = list(config.stop)
        if config.temperature > 0:
            body["seed"] = row.seed % 2**31  # several servers keep 32 bits
        for name in changed(config, ("top_p", *BEYOND)):
            body[name] = getattr(config, name)
        return Call(CHAT if chat else RAW, body)

    def _template(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What vLLM, SGLang and llama.cpp hand to the chat template."""
        given: dict[str, Any] = {}
        if self.asking.switched is not None:
            given |= dict.fromkeys(SWITCHES, self.asking.switched)
        given |= self.asking.template
        body: dict[str, Any] = {"chat_template_kwargs": given} if given else {}
        if messages[-1]["role"] == "assistant":
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        return body

    def stream(self, call: Call) -> ChunkStream:
        """Asks for the usage, which comes with the last event."""
        call.body["stream_options"] = {"include_usage": True}
        return ChunkStream(call.path == CHAT)

    def answer(self, response: Mapping[str, Any], row: Row) -> Answer:
        """The only choice of a response."""
        choices = response.get("choices")
        if not isinstance(choices, list) or not choices:
            raise ServerError("the server's response holds no choices")
        if len(choices) > 1:
            raise ServerError(f"the server sent {len(choices)} answers to one request")
        if inside := found(choices, 0, "error"):
            raise ErrorInsideError(inside)
        reason = found(choices, 0, "finish_reason")
        withheld = found(choices, 0, "message", "refusal")
        if reason == "content_filter" or withheld:
            raise RefusedError("the server withheld the answer: content filter or refusal")
        message, marks = found(choices, 0, "message"), self.asking.marks
        if message:
            said = speech_of(message)
        else:  # a text that goes on
            said, marks = Speech(text_of(found(choices, 0, "text"))), ()
        finish = finish_of(reason, said.text or said.thought)
        if row.config.stop and isinstance(found(choices, 0, "stop_reason"), str):
            finish = "stop_string"  # vLLM names the string that ended it
        counts = (found(response, "usage", f"{of}_tokens") for of in ("prompt", "completion"))
        return answer_of(response, said, finish, usage_of(*counts), row, marks)


class ChunkStream:
    """Chunks of a streamed answer."""

    def __init__(self, chat: bool) -> None:
        self._chat = chat
        self._pieces: list[str] = []
        self._thought: list[str] = []
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
        piece = speech_of(found(choice, "delta"))
        self._pieces.append(piece.text or text_of(found(choice, "text")))
        self._thought.append(piece.thought)
        return bool(self._pieces[-1] or piece.thought)

    def response(self) -> dict[str, Any]:
        """As without streaming.

        Raises:
            PassingError: The end never came: the connection was lost.
        """
        if "finish_reason" not in self._choice and "usage" not in self._rest:
            raise PassingError("the server's stream ended before its answer did")
        text, thought = "".join(self._pieces), "".join(self._thought)
        message = {"content": text, "reasoning_content": thought}
        own: dict[str, Any] = {"message": message} if self._chat else {"text": text}
        return {"choices": [self._choice | own]} | self._rest
