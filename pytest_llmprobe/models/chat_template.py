"""A model's chat template, rendered as transformers renders it and without transformers.

A template comes from wherever its model comes from and is a program. It runs in a sandbox, within
a budget (``template_budget``), and nowhere else: the tokenizer's own ``apply_chat_template`` knows
no bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.meta import find_undeclared_variables

from pytest_llmprobe.errors import TemplateTooCostlyError
from pytest_llmprobe.models.dates import CLOCK, clock
from pytest_llmprobe.models.template_budget import LONGEST, spending
from pytest_llmprobe.models.template_sandbox import Sandbox

GIVEN = frozenset(
    (
        *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
        *(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")),
        *("add_special_tokens", "image_token", "video_token", "audio_token", "loop"),
    )
)
"""What a template is always given, or has of itself: no argument of the user's."""

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names of what an assistant's message was thought with; transformers gives a template the first
two."""


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    special_tokens: Mapping[str, str],
    *,
    answer_follows: bool = True,
    arguments: Mapping[str, Any] = MappingProxyType({}),
    date: str | None = None,
) -> str:
    """The text that a model reads, up to where its answer begins.

    A Jinja template runs in a sandbox; ``special_tokens`` are ``bos_token`` ... by name,
    ``date`` is what it takes for today (``models.dates``). A name among the arguments that begins
    with a slash, as ``/no_think``, is a word that the system's message ends with.

    Raises:
        TemplateTooCostlyError: The template is too long, takes too long or makes too much.
        TemplateError: The template is damaged or refuses the messages.
    """
    said = [name for name in arguments if name.startswith("/") and arguments[name]]
    given = {
        **special_tokens,
        CLOCK: clock(date),
        **{name: value for name, value in arguments.items() if not name.startswith("/")},
        "messages": [_message(message) for message in _with_words(messages, said)],
        "tools": None,
        "documents": None,
        "add_generation_prompt": answer_follows,
    }
    compiled = _compiled(template)
    with spending(sum(map(len, _texts(given)))):
        return compiled.render(given)


@lru_cache(maxsize=4)
def variables(template: str) -> frozenset[str]:
    """The arguments that a template mentions, beside what it is always given.

    One that is damaged mentions none; rendering says what is wrong with it.

    Raises:
        TemplateTooCostlyError: The template is too long.
    """
    environment = _environment(template)
    try:
        found = find_undeclared_variables(environment.parse(template))
    except TemplateError:
        return frozenset()
    return frozenset(found) - GIVEN - environment.globals.keys() - {CLOCK}


@lru_cache(maxsize=4)
def _compiled(template: str) -> Template:
    return _environment(template).from_string(template)


def _environment(template: str) -> Sandbox:
    if len(template) > LONGEST:
        raise TemplateTooCostlyError(
            f"the chat template has {len(template):,} characters, and {LONGEST:,} are the most"
        )
    return Sandbox()


def _with_words(
    messages: Sequence[Mapping[str, Any]], words: Sequence[str]
) -> Sequence[Mapping[str, Any]]:
    """Messages of which the system's ends with some words; there is one then."""
    if not words:
        return messages
    first = messages[0] if messages else {}
    if first.get("role") != "system":
        return [{"role": "system", "content": " ".join(words)}, *messages]
    return [{**first, "content": " ".join((str(first["content"]), *words))}, *messages[1:]]


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message without what is None, its thought under the names that templates read."""
    plain = {name: value for name, value in message.items() if value is not None}
    thought = next((plain[name] for name in REASONING if name in plain), None)
    if thought is None:
        return plain
    return {"thinking": thought, **plain, "reasoning_content": thought}


def _texts(value: object) -> Iterator[str]:
    """All texts in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield str(name)
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
