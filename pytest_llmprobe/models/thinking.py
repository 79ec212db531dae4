"""Whether a model is to think before it answers, and what its chat template is told of it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.dates import date_arguments
from pytest_llmprobe.models.registry import ModelSpec
from pytest_llmprobe.models.thought_marks import KNOWN, Mark, closed_by, marks_in, opened_by

Choice: TypeAlias = Literal["on", "off", "auto"]
CHOICES = ("on", "off", "auto")

SWITCHES = (
    "enable_thinking",
    "thinking",
    "reasoning",
    "enable_reasoning",
    "use_thinking",
    "think",
)
"""Arguments of chat templates that are true or false: Qwen3, GLM, SmolLM3; DeepSeek, Granite;
Command A; others."""

EFFORT, BUDGET = "reasoning_effort", "thinking_budget"
"""gpt-oss, Mistral, Hunyuan: a word; Seed-OSS: tokens, of which 0 is none."""

MODES = (EFFORT, "thinking_mode", "reasoning_mode", "thinking_effort")
"""Arguments that are a word; MiniMax has the second."""

SAID = {"off": ("/no_think", "/nothink"), "on": ("/think",)}
"""Words that a template looks for in the system's message, where it has no argument: Nemotron."""

OFF = ("none", "no_think", "disabled", "off")
LITTLE = ("minimal", "low")
ON = ("enabled", "on")
MUCH = ("high", "medium")


@dataclass(frozen=True)
class Thinking:
    """What is known of a model's thoughts.

    Args:
        marks: Of thoughts; none: whatever it says is its answer.
        arguments: Of the chat template.
        found: Template or tokenizer name marks.
        thinks: A thought is to be expected, which needs room.
    """

    marks: tuple[Mark, ...] = KNOWN
    arguments: Mapping[str, Any] = field(default_factory=dict)
    found: bool = False
    thinks: bool = False


def marks_of(given: object, template: str = "", tokens: Sequence[str] = ()) -> tuple[Mark, ...]:
    """The marks of a model's thoughts: all that are known, and what it names besides.

    Args:
        given: ``thought`` of a model's entry: its own two marks, False if it has none, or None.
        template: Its chat template.
        tokens: Added tokens of its tokenizer.

    Raises:
        ModelError: ``given`` is something else.
    """
    if given is None:
        return tuple(dict.fromkeys((*KNOWN, *marks_in(template, tokens))))
    if given is False:
        return ()
    pair = list(given) if isinstance(given, list | tuple) else []
    if len(pair) != 2 or not all(isinstance(name, str) and name.strip() for name in pair):
        raise ModelError(
            f"thought={given!r}: give what begins and what ends a thought, such as "
            "['<think>', '</think>'], or false"
        )
    return (Mark(*pair),)


def template_arguments(
    template: str | None,
    thinking: Choice | None,
    given: Mapping[str, Any],
    date: str | None = None,
) -> dict[str, Any]:
    """What the chat template is given: the user's arguments and date, the switch of its thoughts.

    A name that begins with a slash is no argument: ``render`` says it in the system's message.

    Raises:
        ModelError: The template does not mention an argument.
        TemplateTooCostlyError: The template is too long.
    """
    if template is None:
        if given:
            raise ModelError(
                f"--llmprobe-template {next(iter(given))}: this model has no chat template"
            )
        return {}
    known = _mentioned(template)
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            listed = ", ".join(sorted(known)) or "none"
            raise ModelError(
                f"--llmprobe-template {name}: the model's chat template does not mention it"
                + (f", did you mean {close[0]}?" if close else "")
                + f" It knows: {listed}"
            )
    return _switch(template, known, thinking) | date_arguments(known, date) | dict(given)


def _switch(template: str, known: frozenset[str], thinking: Choice | None) -> dict[str, Any]:
    if thinking == "auto":
        return {}
    on = thinking == "on"
    found: dict[str, Any] = {name: on for name in SWITCHES if name in known}
    if not on and BUDGET in known:
        found[BUDGET] = 0
    for name in MODES if not found else (EFFORT,):
        if name in known and (word := _mode(template, name, on)) is not None:
            found[name] = word
    return found or dict.fromkeys(said_in(template)["on" if on else "off"][:1], True)


def said_in(template: str) -> dict[str, list[str]]:
    """The words of each switch that a template looks for in a message."""
    return {
        side: [word for word in words if re.search(rf"""(['"]){word}\1\s+in\b""", template)]
        for side, words in SAID.items()
    }


def _mode(template: str, name: str, on: bool) -> str | None:
    """A word that switches thoughts on or off; None if a template is to have its own way."""
    words = {word for _, word in re.findall(r"""(['"])([\w-]+)\1""", template)}
    if not on:
        least = "low" if name == EFFORT else None  # which gpt-oss takes though it does not name it
        return next((word for word in (*OFF, *LITTLE) if word in words), least)
    off_unasked = re.search(rf"""set {name} = ['"]({"|".join(OFF)})['"]""", template)
    wanted = (*ON, *MUCH) if off_unasked else ON
    return next((word for word in wanted if word in words), None)


def is_quiet(arguments: Mapping[str, Any]) -> bool:
    """Whether the arguments of a template switch its thoughts off."""
    switches = (name in arguments and not arguments[name] for name in (*SWITCHES, BUDGET))
    said = (arguments.get(word) for word in SAID["off"])
    modes = (arguments.get(name) in (*OFF, False) for name in MODES)
    return any((*switches, *said, *modes))


def thinking_of(
    spec: ModelSpec,
    template: str | None,
    tokens: Sequence[str],
    prompt: str,
    rendered: Mark | None = None,
) -> Thinking:
    """What is known of a model's thoughts before it has said anything.

    Args:
        spec: What the user asked for.
        template: Its chat template.
        tokens: Added tokens of its tokenizer.
        prompt: A question as the model reads it: it may begin the thought, or end it.
        rendered: What the template writes around the thought of a message.

    Raises:
        ModelError: The user's marks are none, or there is nothing to switch on.
    """
    marks = marks_of(spec.thought, template or "", tokens)
    arguments = template_arguments(template, spec.thinking, spec.template, spec.date)
    named = marks_in(template or "", tokens)
    unknown = rendered and not any(mark.close in rendered.close for mark in marks)
    if rendered is not None and unknown and spec.thought is None:
        named, marks = (*named, rendered), (*marks, rendered)
    found = bool(marks) and (spec.thought is not None or bool(named))
    if spec.thinking == "on" and not found and not _can_switch(template):
        raise ModelError(
            "--llmprobe-thinking on: neither this model's chat template nor its tokenizer knows of "
            "a thought; name its marks as `thought` under [tool.llmprobe.models], or leave it out"
        )
    thinks = opened_by(prompt, marks) is not None or (
        found and not is_quiet(arguments) and not closed_by(prompt, marks)
    )
    return Thinking(marks, arguments, found, thinks)


def _mentioned(template: str) -> frozenset[str]:
    # A run without a model should not wait for the import of jinja2.
    from pytest_llmprobe.models.chat_template import variables

    return variables(template)


def _can_switch(template: str | None) -> bool:
    if template is None:
        return False
    named = not _mentioned(template).isdisjoint((*SWITCHES, *MODES, BUDGET))
    return named or any(said_in(template).values())
