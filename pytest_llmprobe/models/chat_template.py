"""A model's chat template, rendered as transformers renders it and without transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from pytest_llmprobe.models.dates import CLOCK, clock

if TYPE_CHECKING:
    from jinja2.parser import Parser


GIVEN = frozenset(
    (
        *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
        *(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")),
        *("add_special_tokens", "image_token", "video_token", "audio_token", "loop"),
    )
)
"""What a template is always given, or has of itself: no argument of the user's."""


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
    ``date`` is what it takes for today (``models.dates``).

    Raises:
        TemplateError: The template is damaged or refuses the messages.
    """
    return _compiled(template).render(
        **dict(special_tokens)
        | {CLOCK: clock(date)}
        | dict(arguments)
        | {
            "messages": [dict(message) for message in messages],
            "tools": None,
            "documents": None,
            "add_generation_prompt": answer_follows,
        }
    )


@lru_cache(maxsize=4)
def variables(template: str) -> frozenset[str]:
    """The arguments that a template mentions, beside what it is always given.

    One that is damaged mentions none; rendering says what is wrong with it.
    """
    environment = _environment()
    try:
        found = find_undeclared_variables(environment.parse(template))
    except TemplateError:
        return frozenset()
    return frozenset(found) - GIVEN - environment.globals.keys()


class _Generation(Extension):
    """``{% generation %}`` marks what a model said, for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 # as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """Keeps no underscored names, which could reach into the interpreter."""

    def __init__(self, *args: Any, **values: Any) -> None:
        super().__init__()
        for name, value in dict(*args, **values).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a chat template may not keep {name!r}")
        super().__setitem__(name, value)


@lru_cache(maxsize=4)
def _compiled(template: str) -> Template:
    return _environment().from_string(template)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["namespace"] = _Namespace
    environment.globals["raise_exception"] = _refuse
    environment.globals[CLOCK] = clock(None)
    return environment


def _to_json(value: object, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _refuse(message: str) -> None:
    raise TemplateError(message)
