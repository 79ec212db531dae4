"""What a chat template may cost: characters that it makes, steps, seconds.

A template comes with a model and is a program. It is counted beforehand what an operation can make
at most, so that none is begun that memory or patience would not survive.
"""

from __future__ import annotations

import re
import string
import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2 import Undefined

from pytest_llmprobe.errors import TemplateTooCostlyError

LONGEST = 128 * 1024
"""Characters of a template; the longest of public models have about 40,000."""

ROOM, GROWTH = 16_000_000, 256
"""Characters that a template may make of an empty prompt, and more for each one of the prompt.
A thousand messages that are joined one by one make 500 times their length."""

STEP = 64
"""Characters that a step counts for: about what a small object needs."""

SECONDS = 5.0
"""Of this thread's processor: no matter how busy the machine is."""

LONGEST_NUMBER = 4096
"""Bits of a whole number."""

ESCAPED = 10
"""Most characters that one becomes when it is quoted: ``\\U0001f600``."""

WIDEST_FLOAT = 400


class Budget:
    """What is left to one rendering.

    Args:
        given: Characters that the template is given.
    """

    def __init__(self, given: int) -> None:
        self.limit = self._left = ROOM + GROWTH * given
        self._until = time.thread_time() + SECONDS
        self._known: dict[int, tuple[object, int]] = {}

    def spend(self, characters: int = 0) -> None:
        """Count one step, and what it makes at most.

        Raises:
            TemplateTooCostlyError: Nothing is left.
        """
        self._left -= characters + STEP
        if self._left < 0:
            raise TemplateTooCostlyError(
                f"the chat template makes more than {self.limit:,} characters of one prompt, or "
                f"takes more than {self.limit // STEP:,} steps"
            )
        if time.thread_time() > self._until:
            raise TemplateTooCostlyError(
                f"the chat template takes more than {SECONDS:g} s of processor time"
            )

    def weight(self, value: object) -> int:
        """Characters in a value and in all that it holds, what it holds twice counted twice.

        Raises:
            TemplateTooCostlyError: It holds more than may be made at all.
        """
        if isinstance(value, str):
            return len(value)
        if isinstance(value, int):
            return 8 + value.bit_length()
        if not isinstance(value, CONTAINERS):
            return STEP
        if id(value) in self._known:
            return self._known[id(value)][1]
        if len(value) > self.limit:
            self._refuse(len(value))
        found = 0
        for part in _parts(value):
            found += 8 + self.weight(part)
            if found > self.limit:
                self._refuse(found)
        self.spend(8 * len(value))
        self._known[id(value)] = value, found  # kept, so that no other object has its id
        return found

    def weights(self, values: Iterable[object]) -> int:
        """Of several values together."""
        return sum(map(self.weight, values))

    def made(self, value: Any) -> Any:
        """The value, counted: what was made of others without growing."""
        if isinstance(value, CONTAINERS):
            self.weight(value)
        else:
            self.spend(len(value) if isinstance(value, str) else 0)
        return value

    def text_weight(self, value: object) -> int:
        """Characters of a value's text at most."""
        if isinstance(value, Undefined):
            return 0
        return len(value) if isinstance(value, str) else ESCAPED * self.weight(value)

    def _refuse(self, found: int) -> None:
        raise TemplateTooCostlyError(
            f"the chat template makes a list of {found:,} characters or more; {self.limit:,} are "
            "the most"
        )


CONTAINERS = (list, tuple, dict, set, frozenset, KeysView, ValuesView, ItemsView)

_CURRENT: ContextVar[Budget] = ContextVar("budget")


def budget() -> Budget:
    """Of the rendering that goes on."""
    return _CURRENT.get()


@contextmanager
def spending(given: int) -> Iterator[None]:
    """Render within a budget for so many characters."""
    token = _CURRENT.set(Budget(given))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def _parts(value: Any) -> Iterator[object]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield part
    else:
        yield from value


def product_cost(operator: str, left: Any, right: Any) -> int:
    """Characters of what a binary operator makes, at most.

    Raises:
        TemplateTooCostlyError: A whole number becomes too long.
    """
    spent = budget()
    if operator == "%" and isinstance(left, str):
        return percent_cost(left, right)
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() + right.bit_length()
        if operator == "**":
            bits = left.bit_length() * max(right, 1)
        if bits > LONGEST_NUMBER:
            raise TemplateTooCostlyError(
                f"the chat template makes a whole number of more than {LONGEST_NUMBER:,} bits"
            )
        return 0
    both = spent.weight(left), spent.weight(right)
    for times, (value, weight) in ((right, (left, both[0])), (left, (right, both[1]))):
        if operator == "*" and isinstance(times, int) and not isinstance(value, int | float):
            return max(times, 0) * max(weight, 8)
    return ESCAPED * sum(both) if hasattr(left, "__html__") else sum(both)


def percent_cost(form: str, values: Any) -> int:
    """Of a text with ``%`` in it, and values for them."""
    given = values if isinstance(values, tuple) else (values,)
    numbers = [abs(value) for value in given if isinstance(value, int)] if "*" in form else []
    return _filled(form, form.count("%"), given, max(numbers, default=0))


def format_cost(form: str, values: Sequence[object], named: Mapping[str, object]) -> int:
    """Of a text with ``{}`` in it, and values for them.

    Raises:
        TemplateTooCostlyError: A width is a value itself.
    """
    pieces = list(string.Formatter().parse(form))
    if any("{" in (spec or "") for _, _, spec, _ in pieces):
        raise TemplateTooCostlyError("the chat template formats with a width that it computes")
    return _filled(form, len(pieces), (*values, *named.values()), 0)


def _filled(form: str, n: int, values: Sequence[object], width: int) -> int:
    widest = max((_number(digits) for digits in re.findall(r"\d+", form)), default=0)
    longest = max((budget().text_weight(value) for value in values), default=0)
    return len(form) + n * (widest + width + ESCAPED * longest + WIDEST_FLOAT)


def _number(digits: str) -> int:
    return int(digits) if len(digits) < 20 else 10**20


def replacement_cost(text: str, old: str, new: str) -> int:
    """Of a text with each of some words replaced."""
    return len(text) + text.count(old) * len(new)
