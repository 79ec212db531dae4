"""A case: one prompt with its target and what is known about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeAlias

from pytest_llmprobe.errors import CasesError

Message: TypeAlias = Mapping[str, str]
"""One chat message: ``{"role": "user", "content": "..."}``."""


@dataclass(frozen=True)
class RawPrompt:
    """A text that goes to the model as it is, to be continued: no chat template.

    Args:
        text: The text.
        ids: Its token ids, BOS included, where the text was cut from a longer one: a piece may be
            encoded otherwise on its own. The model's tokenizer encodes the text if left out.
    """

    text: str
    ids: tuple[int, ...] = ()


Prompt: TypeAlias = str | Sequence[Message] | RawPrompt
"""A string (sent as a user message if the model has a chat template), chat messages, or a text
without either."""


@dataclass(frozen=True)
class Span:
    """A substring of a prompt.

    Args:
        text: The substring; white space around it is ignored.
        level: Factor of Delta for this span: 0.5, 1 and 2 in GUIDE (arXiv 2409.19001).
        message: Number of the chat message that holds it; None: any.
        occurrence: Which one, from 0, if the prompt (or that message) holds it more than once.

    Raises:
        CasesError: The text is empty, or the level is not a number above 0.
    """

    text: str
    level: float = 1.0
    message: int | None = None
    occurrence: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise CasesError(f"the text of a span is {self.text!r}; give a substring of the prompt")
        if not (isfinite(self.level) and self.level > 0):
            raise CasesError(f"span {self.text!r}: level {self.level!r} is not a number above 0")


@dataclass(frozen=True)
class Case:
    """One prompt, what a correct answer is, and what to group results by.

    Args:
        id: ``group/name`` or ``name``, unique within its experiment. Cases of one group share
            a long prompt prefix (one haystack) and are generated together.
        prompt: A string or a list of chat messages.
        target: The correct answer, for the assertion and the report.
        metadata: Built-in values (str, int, float, bool, None); ``task``, ``size`` and ``trial``
            become fields of the report's record, the others its ``params``.
        chance: Probability that a model without the ability passes, between 0 and 1.
        spans: Substrings of the prompt whose attention may be steered: a string, a Span, or several
            of either.
        max_new_tokens: Room for the answer; None: what the probe marker says.
        stop: Strings that end the answer, beside the probe marker's.
        choices: Answers that the model chooses from by how likely it finds each after the prompt,
            with the fixture ``choice``; the target is one of them, or its number from 0.
        ending: What follows each choice: not the choices are scored but this text after prompt and
            choice, as in WinoGrande.
        unconditional: A prompt that says nothing, such as ``""`` or ``"Answer:"``: how likely the
            choices are after it is taken off for ``acc_mutual_info``.
        seed: Seed of this case's sampling; set by the plugin from the suite's seed, the
            experiment and the case id.

    Raises:
        CasesError: The id, the prompt, the chance, the spans, the room, a stop string or a choice
            cannot be used.
    """

    id: str
    prompt: Prompt
    target: str | tuple[str, ...] | int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    chance: float | None = None
    seed: int = 0
    spans: tuple[Span | str, ...] = ()
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    ending: str | None = None
    unconditional: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id.strip() or not self.id.isprintable():
            raise CasesError(f"case id {self.id!r}: give a printable string such as 'group/name'")
        target: object = self.target
        if isinstance(target, list):
            object.__setattr__(self, "target", tuple(target))
        if self.chance is not None:
            object.__setattr__(self, "chance", self._checked_chance(self.chance))
        try:
            check_prompt(self.prompt)
            object.__setattr__(self, "spans", checked_spans(self.spans))
            object.__setattr__(self, "stop", _checked_stop(self.stop))
            if self.choices or self.ending is not None or self.unconditional is not None:
                object.__setattr__(self, "choices", checked_choices(self.choices))
                object.__setattr__(self, "target", target_of(self.choices, self.target))
                _check_beside(self.ending, self.unconditional)
        except CasesError as error:
            raise CasesError(f"case {self.id!r}: {error}") from None
        room: object = self.max_new_tokens
        if room is not None and (not isinstance(room, int) or isinstance(room, bool) or room < 1):
            raise CasesError(
                f"case {self.id!r}: max_new_tokens={room!r}: it must be a whole number from 1 up"
            )

    def _checked_chance(self, chance: float) -> float:
        try:
            number = float(chance)  # a numpy scalar or a fraction, say
        except (TypeError, ValueError):
            number = -1.0
        if not 0 <= number <= 1:
            raise CasesError(f"case {self.id!r}: chance {chance!r} is not between 0 and 1")
        return number

    @property
    def group(self) -> str | None:
        """The part of the id before its last slash, if there is one."""
        return self.id.rpartition("/")[0] or None


def check_prompt(prompt: object) -> None:
    """Raise CasesError unless ``prompt`` is a non-empty text or a list of chat messages."""
    text = prompt.text if isinstance(prompt, RawPrompt) else prompt
    if isinstance(text, str):
        if not text and not (isinstance(prompt, RawPrompt) and prompt.ids):
            raise CasesError("the prompt is empty")
        _check_text(text)
        return
    if not isinstance(prompt, Sequence) or not prompt:
        raise CasesError(f"the prompt is {type(prompt).__name__}; give a string or chat messages")
    for message in prompt:
        if not (
            isinstance(message, Mapping)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
        ):
            raise CasesError(f"{message!r} is no chat message; it needs a 'role' and a 'content'")
        _check_text(message["content"])


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CasesError(
            f"the prompt is no Unicode text: {error.reason} at {error.start}"
        ) from None


def checked_spans(given: object) -> tuple[Span, ...]:
    """Spans from a string, a Span, or several of either.

    Raises:
        CasesError: Something else.
    """
    several = [given] if isinstance(given, str | Span) else given
    items = tuple(several) if isinstance(several, Iterable) else (several,)
    if strange := [item for item in items if not isinstance(item, str | Span)]:
        raise CasesError(f"{strange[0]!r} is no span; give a substring of the prompt, or a Span")
    return tuple(Span(item) if isinstance(item, str) else item for item in items)


def _checked_stop(given: object) -> tuple[str, ...]:
    several = [given] if isinstance(given, str) else given
    stop: tuple[Any, ...] = tuple(several) if isinstance(several, Iterable) else (several,)
    if not all(isinstance(one, str) and one for one in stop):
        raise CasesError(f"stop={given!r}: it must be non-empty strings")
    return stop


def checked_choices(given: object) -> tuple[str, ...]:
    """Choices as a tuple.

    Raises:
        CasesError: They are no texts, fewer than two, empty, or one is there twice.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise CasesError(f"choices={given!r}: give a list of texts")
    choices: tuple[Any, ...] = tuple(given)
    for number, choice in enumerate(choices):
        if not isinstance(choice, str):
            raise CasesError(f"choices[{number}] is {choice!r}; a choice is a text")
        if not choice.strip():
            raise CasesError(f"choices[{number}] is empty")
        _check_text(choice)
        if choice in choices[:number]:
            raise CasesError(
                f"choices[{number}] is {choice!r}, as choices[{choices.index(choice)}]: choices "
                "differ"
            )
    if len(choices) < 2:
        raise CasesError(f"there is nothing to choose from: choices={list(choices)!r}")
    return choices


def target_of(choices: Sequence[str], target: object) -> str:
    """The choice that is right, from its text or its number.

    Raises:
        CasesError: It is none of them.
    """
    if isinstance(target, int) and not isinstance(target, bool) and 0 <= target < len(choices):
        return choices[target]
    if isinstance(target, str) and target in choices:
        return target
    raise CasesError(f"the target {target!r} is none of the choices {list(choices)!r}")


def _check_beside(ending: object, unconditional: object) -> None:
    if ending is not None and (not isinstance(ending, str) or not ending.strip()):
        raise CasesError(f"ending={ending!r}: give the text that follows each choice")
    if unconditional is not None and (not isinstance(unconditional, str) or ending is not None):
        raise CasesError(
            f"unconditional={unconditional!r}: give a prompt that says nothing, such as '', to a "
            "case without an ending"
        )


def prompt_json(prompt: Prompt) -> Any:
    """A prompt in JSON's types: a string, a list of messages, or an object for a raw text."""
    if isinstance(prompt, RawPrompt):
        return {"text": prompt.text, "ids": list(prompt.ids)}
    return prompt if isinstance(prompt, str) else [dict(message) for message in prompt]


def prompt_text(prompt: Prompt) -> str:
    """All text of a prompt, messages joined by blank lines."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, RawPrompt):
        return prompt.text
    return "\n\n".join(message["content"] for message in prompt)


def check_cases(cases: Iterable[object], source: str) -> list[Case]:
    """Return the cases as a list, or say what is wrong with them.

    Args:
        cases: What a cases function returned.
        source: Name of that function, for the error.

    Raises:
        CasesError: No cases, something that is not a Case, or an id that occurs twice.
    """
    checked: list[Case] = []
    seen: set[str] = set()
    for case in cases:
        if not isinstance(case, Case):
            raise CasesError(f"{source} yielded {case!r}, which is not a Case")
        if case.id in seen:
            raise CasesError(f"{source} yielded two cases with the id {case.id!r}; ids are unique")
        seen.add(case.id)
        checked.append(case)
    if not checked:
        raise CasesError(f"{source} yielded no cases")
    return checked


def spread(cases: Sequence[Case], limit: int | None) -> list[Case]:
    """At most ``limit`` cases, evenly spread over the list and always the same ones."""
    if limit is None or limit >= len(cases):
        return list(cases)
    return [cases[(2 * i + 1) * len(cases) // (2 * limit)] for i in range(limit)]
