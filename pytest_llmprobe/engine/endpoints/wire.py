"""What a protocol has to say: which request a row becomes, and what a response means."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pytest_llmprobe.case import Prompt
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.errors import ServerError
from pytest_llmprobe.generation import LONGEST_REASON, FinishReason, GenerateConfig, Usage
from pytest_llmprobe.models.thinking import Choice
from pytest_llmprobe.models.thought_marks import KNOWN, Mark
from pytest_llmprobe.models.thoughts import part

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
    finish_reason: str
    usage: Usage
    model: str | None
    thought: str | None = None


@dataclass(frozen=True)
class Speech:
    """What a server sends of a model's words.

    Args:
        text: The answer, with a thought if the server leaves it there.
        thought: What the server itself calls that.
    """

    text: str
    thought: str = ""


class PassingError(ServerError):
    """A response that cannot be read, or broke off; another attempt may be better."""


class ErrorInsideError(ServerError):
    """A server says that it failed where an answer is due.

    Args:
        body: What it sent of the error.
        where: Where it was sent.
    """

    def __init__(self, body: Any, where: str = "within an answer") -> None:
        super().__init__(str(body))
        self.body, self.where = body, where


class Stream(Protocol):
    """Puts the events of a streamed answer together."""

    def add(self, event: Any) -> bool:
        """Take one event; True if it holds text."""

    def response(self) -> dict[str, Any]:
        """What the server would have sent without streaming."""


@dataclass(frozen=True)
class Asking:
    """How a served model is asked to think, as the user chose.

    Args:
        thinking: ``on``, ``off`` or ``auto``; None leaves it to the server, and room for a thought
            is given where one turns out to need it.
        template: Arguments of the server's chat template.
        marks: What its thoughts begin and end with, if the server leaves them in the text.
    """

    thinking: Choice | None = None
    template: Mapping[str, Any] = field(default_factory=dict)
    marks: Sequence[Mark] = KNOWN

    @property
    def switched(self) -> bool | None:
        """Whether it is told to think, or not to; None: it is told nothing."""
        return None if self.thinking in (None, "auto") else self.thinking == "on"


class Wire(Protocol):
    """One protocol.

    Attributes:
        unknown: Settings that it cannot express.
        remedy: What the user is told of one.
        asking: How the model is asked to think.
    """

    unknown: tuple[str, ...]
    remedy: str
    asking: Asking

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

    def answer(self, response: Mapping[str, Any], row: Row) -> Answer:
        """What a response to a row's request means.

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


def usage_of(prompt_tokens: Any, generated_tokens: Any) -> Usage:
    """Both counts, each as far as it is known."""
    return Usage(count_of(prompt_tokens), count_of(generated_tokens))


REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
}
"""Why an answer ended, in the words of vLLM, SGLang, TGI, Mistral, Gemini and others."""


BROKEN = {"error", "abort", "aborted"}
"""Reasons that are none to take what there is for an answer: Mistral's, SGLang's, OpenRouter's."""


def finish_of(reason: Any, text: str, known: Mapping[str, FinishReason] = REASONS) -> str:
    """What a server's reason is called here: its own word if that is not known.

    Raises:
        ErrorInsideError: The server failed in the middle.
        ServerError: There is none, and no text either.
    """
    if reason in BROKEN:
        raise ErrorInsideError({"message": f"the answer ended with the reason {reason!r}"})
    if reason is None or reason == "":
        if text:
            return "stop"
        raise ServerError("the server ended its answer without a text and without a reason")
    word = str(reason)
    return known.get(word.lower(), word[:LONGEST_REASON])


def speech_of(message: Any) -> Speech:
    """What a chat message says: its text, and what the server calls a thought in it.

    Fields of vLLM, SGLang, DeepSeek (``reasoning_content``, ``reasoning``), OpenRouter
    (``reasoning_details``) and Ollama (``thinking``); parts as of Mistral and OpenAI.

    Raises:
        ServerError: It holds no text where one belongs.
    """
    content = found(message, "content")
    text, thought = _of_parts(content) if isinstance(content, list) else (text_of(content), "")
    for name in ("reasoning_content", "reasoning", "thinking"):
        given = found(message, name)
        if isinstance(given, str) and given:  # several servers send it under two names
            return Speech(text, thought + text_of(given))
    details = found(message, "reasoning_details")
    if isinstance(details, list):
        thought += "".join(text_of(found(d, "text") or found(d, "summary")) for d in details)
    return Speech(text, thought)


def _of_parts(parts: Sequence[Any]) -> tuple[str, str]:
    """The texts of a message's parts, and of those that are thoughts."""
    texts, thoughts = [], []
    for each in parts:
        kind = found(each, "type")
        if not isinstance(each, str | Mapping):
            raise ServerError(f"the server's answer holds {type(each).__name__} among its parts")
        if isinstance(each, str) or kind in ("text", "output_text"):
            texts.append(each if isinstance(each, str) else text_of(found(each, "text")))
        elif isinstance(kind, str) and kind.startswith(("thinking", "reasoning", "thought")):
            thoughts.append(_nested(found(each, kind) or found(each, "text")))
    return "".join(texts), "".join(thoughts)


def _nested(value: Any) -> str:
    if isinstance(value, list):
        return "".join(_nested(found(each, "text")) for each in value)
    return text_of(value)


def answer_of(
    response: Mapping[str, Any],
    said: Speech,
    finish: str,
    usage: Usage,
    row: Row,
    marks: Sequence[Mark],
) -> Answer:
    """The answer without its thought, cut before the first stop string if a server leaves it in.

    Raises:
        ServerError: The text is far longer than the tokens that it was allowed can be.
    """
    parted = part(said.text, marks)
    if len(parted.answer) > row.room * CHARACTERS_OF_A_TOKEN:  # some do not count a thought
        raise ServerError(
            f"the server sent {len(parted.answer)} characters for {row.room} tokens of an answer"
        )
    pieces = [piece for piece in (said.thought.strip(), parted.thought) if piece]
    thought = "\n\n".join(pieces) if pieces else parted.thought
    text = parted.answer
    places = [place for stop in row.config.stop if (place := text.find(stop)) >= 0]
    if places:
        text, finish = text[: min(places)], "stop_string"
    name = response.get("model")
    model = name[:200] if isinstance(name, str) else None
    return Answer(text, finish, usage, model, thought)


def changed(config: GenerateConfig, names: Sequence[str]) -> list[str]:
    """Those of the settings that are not at their default."""
    default = GenerateConfig()
    return [name for name in names if getattr(config, name) != getattr(default, name)]
