"""What a protocol has to say: which request a row becomes, and what a response means."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pytest_llmprobe.case import Prompt
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.errors import ServerError
from pytest_llmprobe.generation import FinishReason, GenerateConfig, Usage

CHARACTERS_OF_A_TOKEN = 1000
"""No tokenizer has longer tokens; a longer answer ignores max_new_tokens."""


@dataclass(frozen=True)
class Call:
    """One request: a path below the base URL, and its JSON body."""

    path: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a response says; ``model`` is the served model's own name for itself."""

    text: str
    finish_reason: FinishReason
    usage: Usage | None
    model: str | None


class Stream(Protocol):
    """Puts the events of a streamed answer together."""

    def add(self, event: Any) -> bool:
        """Take one event; True if it holds text."""

    def response(self) -> dict[str, Any]:
        """What the server would have sent without streaming."""


class Wire(Protocol):
    """One protocol.

    Attributes:
        unknown: Settings that it cannot express.
        remedy: What the user is told of one.
    """

    unknown: tuple[str, ...]
    remedy: str

    def unsupported(self, config: GenerateConfig) -> str | None:
        """Why this protocol cannot express a config, or None."""
        for name in changed(config, self.unknown):
            return f"{name}={getattr(config, name)!r}{self.remedy}"
        return None

    def encode(self, prompt: Prompt) -> bytes:
        """What a request says of a prompt, as JSON.

        Raises:
            UnsupportedError: This protocol cannot send such a prompt.
            RequestError: Nor can any other, or more has to be known about the server.
        """

    def call(self, row: Row) -> Call:
        """The request for a row whose ``prompt_ids`` are what ``encode`` gave."""

    def stream(self, call: Call) -> Stream:
        """Collects the events of this call's answer."""

    def answer(self, response: Mapping[str, Any], config: GenerateConfig) -> Answer:
        """What a response means.

        Raises:
            ServerError: It is none that the protocol knows.
            RefusedError: The server withholds the text.
        """


def canonical(value: Any) -> bytes:
    """JSON with sorted keys: equal prompts are equal bytes."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()


def found(value: Any, *path: str | int) -> Any:
    """What lies at a path through objects and lists, or None."""
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and len(value) > step else None
        else:
            value = value.get(step) if isinstance(value, Mapping) else None
    return value


def text_of(value: Any) -> str:
    """A server's text, without what no UTF-8 can hold.

    Raises:
        ServerError: It is no text.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ServerError(f"the server's answer holds {type(value).__name__} where text belongs")
    return value.encode("utf-8", "replace").decode()


def count_of(value: Any) -> int | None:
    """A server's token count, if it is one."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < 2**53 else None


def usage_of(prompt_tokens: Any, generated_tokens: Any) -> Usage | None:
    """Both counts, or None."""
    prompt, generated = count_of(prompt_tokens), count_of(generated_tokens)
    return None if prompt is None or generated is None else Usage(prompt, generated)


def finish_of(reason: Any, known: Mapping[str, FinishReason]) -> FinishReason:
    """What a server's reason is called here.

    Raises:
        ServerError: The protocol has no such reason.
    """
    if reason not in known:
        raise ServerError(f"the server ended its answer with the reason {str(reason)[:100]!r}")
    return known[reason]


def answer_of(
    response: Mapping[str, Any],
    text: str,
    finish: FinishReason,
    usage: Usage | None,
    config: GenerateConfig,
) -> Answer:
    """The answer, its text cut before the first stop string, should a server leave that in.

    Raises:
        ServerError: The text is far longer than max_new_tokens tokens can be.
    """
    if len(text) > config.max_new_tokens * CHARACTERS_OF_A_TOKEN:
        raise ServerError(
            f"the server sent {len(text)} characters for max_new_tokens={config.max_new_tokens}"
        )
    places = [place for stop in config.stop if (place := text.find(stop)) >= 0]
    if places:
        text, finish = text[: min(places)], "stop_string"
    name = response.get("model")
    return Answer(text, finish, usage, name[:200] if isinstance(name, str) else None)


def changed(config: GenerateConfig, names: Sequence[str]) -> list[str]:
    """Those of the settings that are not at their default."""
    default = GenerateConfig()
    return [name for name in names if getattr(config, name) != getattr(default, name)]
