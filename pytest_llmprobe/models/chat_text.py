"""A prompt as a chat template writes it, whatever renders the template; errors in one sentence.

A last message of the assistant's is the beginning of the answer and is left open. A template that
takes a message's text only as a list of parts is given that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from pytest_llmprobe.case import Prompt, RawPrompt
from pytest_llmprobe.errors import RequestError, TemplateTooCostlyError

Messages: TypeAlias = list[dict[str, Any]]

TAG = "CONTINUE_FINAL_MESSAGE_TAG "
"""Marks where a message is left open, as in transformers' continue_final_message."""

SHOWN = 300
"""Characters of a template's own words that an error repeats."""


class Render(Protocol):
    """Renders messages by a model's chat template."""

    def __call__(self, messages: Messages, answer_follows: bool) -> str:
        """The text, with the beginning of an answer if one follows; raises anything."""


def messages_of(prompt: Prompt) -> Messages:
    """A prompt's chat messages; a string is a user's."""
    assert not isinstance(prompt, RawPrompt)
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [dict(message) for message in prompt]


def is_prefill(prompt: Prompt) -> bool:
    """Whether the last message of a prompt is the beginning of the answer."""
    if isinstance(prompt, str | RawPrompt):
        return False
    return bool(prompt) and prompt[-1]["role"] == "assistant"


def chat_text(render: Render, messages: Messages) -> str:
    """What a model reads of chat messages, up to where its answer begins or goes on.

    Raises:
        RequestError: The template fails, loses a question, closes the answer that is begun, or
            cannot be rendered within bounds.
    """
    failure: Exception | None = None
    for given in (messages, _in_parts(messages)):
        try:
            text = _rendered(render, given)
            lost = _lost(render, given, text)
        except TemplateTooCostlyError:
            raise
        except Exception as error:  # a template is a program, which may fail in any way
            failure = failure or error
            continue
        if not lost:
            return text
        failure = failure or RequestError(
            "the chat template leaves the user's message out of the prompt, given as a text and as "
            "a list of parts; give the model another template"
        )
    if isinstance(failure, RequestError):
        raise failure
    assert failure is not None
    raise RequestError(f"the chat template refuses this prompt: {_words(failure)}") from failure


def _words(error: Exception) -> str:
    words = " ".join(str(error).split())[:SHOWN]
    ours = type(error).__module__.startswith("jinja2") or isinstance(error, ValueError)
    return words if words and ours else f"{type(error).__name__}: {words}".removesuffix(": ")


def _in_parts(messages: Messages) -> Messages:
    return [
        message | {"content": [{"type": "text", "text": message["content"]}]}
        for message in messages
    ]


def _rendered(render: Render, messages: Messages) -> str:
    if messages[-1]["role"] != "assistant":
        return render(messages, answer_follows=True)
    begun = _text(messages[-1])
    marked = render([*messages[:-1], _with_text(messages[-1], begun + TAG)], answer_follows=False)
    tag = TAG.strip()
    place = marked.rfind(tag)
    if place < 0 or not marked[:place].rstrip().endswith(begun.strip()):
        raise RequestError(
            "the last message is the assistant's, to be gone on with, and the chat template does "
            "not let it stand at the prompt's end; leave it out"
        )
    kept = marked[:place]
    # A template that strips messages would have stripped this one's end, too.
    return kept if marked.startswith(TAG, place) else kept.rstrip()


def _lost(render: Render, messages: Messages, text: str) -> bool:
    """Whether the prompt is the same whatever the user's last message says."""
    place = max((n for n, m in enumerate(messages) if m["role"] == "user"), default=None)
    if place is None:
        return False
    said = _text(messages[place])
    if said.strip() in text:
        return False
    other = _with_text(messages[place], f"{said} {said}?")
    return _rendered(render, [*messages[:place], other, *messages[place + 1 :]]) == text


def _text(message: Mapping[str, Any]) -> str:
    content: Any = message["content"]
    text: str = content if isinstance(content, str) else content[0]["text"]
    return text


def _with_text(message: Mapping[str, Any], text: str) -> dict[str, Any]:
    content = text if isinstance(message["content"], str) else [{"type": "text", "text": text}]
    return {**message, "content": content}


def one_bos(ids: Sequence[int], bos: int | None) -> list[int]:
    """Token ids that begin with BOS at most once."""
    first = 0
    while bos is not None and len(ids) > first + 1 and ids[first] == ids[first + 1] == bos:
        first += 1
    return list(ids[first:])


def end_of_turn(render: Render) -> str:
    """What a template writes after an assistant's message, "" if nothing can be said of it.

    Raises:
        TemplateTooCostlyError: It cannot be rendered within bounds.
    """
    said = "Yes, it is."
    messages: Messages = [
        {"role": "user", "content": "Is it so?"},
        {"role": "assistant", "content": said},
    ]
    for given in (messages, _in_parts(messages)):
        try:
            before, found, after = render(given, answer_follows=False).rpartition(said)
        except TemplateTooCostlyError:
            raise
        except Exception:  # such a template says so when it is given a prompt
            continue
        if found and before:
            return after
    return ""
