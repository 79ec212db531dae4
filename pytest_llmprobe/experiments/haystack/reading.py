"""Where an answer to a question about a text says a value, and whether it offers another one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

from pytest_llmprobe.experiments.answers import (
    SEPARATOR,
    is_denied,
    number_pattern,
    offers_both,
    plain,
)

# Letters and digits that make a longer word or number of the one that they touch. Those of other
# scripts do not: Chinese, Japanese and Thai have no spaces, Korean hangs particles on a word.
_GLUE = "0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff\u0300-\u036f"
_APART = rf"(?:(?<![{_GLUE}])|(?<=\\[nrt]))(?<![{_GLUE}]-)"  # or after a line's end in JSON
_BEFORE = rf"{_APART}(?<!\d[.,'\u066c\u00a0\u2007\u2009\u202f])"
_AFTER = rf"(?![{_GLUE}]|-[{_GLUE}]|[.,\u066c]\d|['\u00a0\u2007\u2009\u202f]\d{{3}})"

_ANY_NUMBER = re.compile(
    rf"{_BEFORE}(?:\d{{1,3}}(?:{SEPARATOR}\d{{3}})+|\d{{3,}}){_AFTER}", re.IGNORECASE
)


@lru_cache(maxsize=4096)
def _pattern(value: str) -> re.Pattern[str]:
    is_number = value.isascii() and value.isdecimal()
    form = number_pattern(value) if is_number else re.escape(value)
    return re.compile(f"{_BEFORE}{form}{_AFTER}", re.IGNORECASE)


@lru_cache(maxsize=8)
def _any_of(values: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(f"{_BEFORE}(?:{'|'.join(map(re.escape, values))}){_AFTER}", re.IGNORECASE)


@lru_cache(maxsize=64)
def whole_words(values: tuple[str, ...], looks: str | None = None) -> re.Pattern[str]:
    """A pattern of some words in upper or lower case, and of what looks like them as it stands.

    Unlike numbers they may touch a number's mark: ``12,lantern``.
    """
    either = [f"(?i:{'|'.join(map(re.escape, values))})", *([looks] if looks else [])]
    return re.compile(rf"{_APART}(?:{'|'.join(either)})(?![{_GLUE}]|-[{_GLUE}])")


def mentions(text: str, value: str) -> Iterator[tuple[int, int]]:
    """The places of a value in a text that is `plain` already."""
    return (found.span() for found in _pattern(value).finditer(text))


def says(answer: str, value: str) -> bool:
    """Whether a value occurs in an answer as a whole word or number, in upper or lower case.

    ``cat`` is not in ``cat-like`` or ``1cat``, nor ``123`` in ``123.5`` or ``9,123``; marks and
    markdown around a value, separators between the thousands of a number, and Chinese or Japanese
    text without a space before and after do not matter.
    """
    return any(True for _ in mentions(plain(answer), value))


def affirms(answer: str, value: str) -> bool:
    """Whether an answer says a value, and not only to deny it: ``it is not lantern``."""
    text = plain(answer)
    return any(not is_denied(text, *place) for place in mentions(text, value))


def values_in(text: str, value: str, candidates: tuple[str, ...] = ()) -> list[tuple[int, int]]:
    """The places of a value and of others of its kind in a `plain` text, in order.

    Args:
        text: What the model said.
        value: The one.
        candidates: The others; any number, if there are none.
    """
    return [(start, end) for start, end, _ in _told_apart(text, value, candidates)]


def _told_apart(text: str, value: str, candidates: tuple[str, ...]) -> list[tuple[int, int, bool]]:
    """The same places, each with whether it is the value's."""
    own = [(*place, True) for place in mentions(text, value)]
    pattern = _any_of(candidates) if candidates else _ANY_NUMBER
    starts = {start for start, _, _ in own}
    others = [(*m.span(), False) for m in pattern.finditer(text) if m.start() not in starts]
    return sorted(own + others)


def alternative(answer: str, value: str, candidates: tuple[str, ...] = ()) -> str | None:
    """Another value that an answer offers beside one: ``lantern or anchor``.

    Args:
        answer: What the model said.
        value: The one.
        candidates: What else might be offered; any number, if there are none.
    """
    text = plain(answer)
    for one, two in pairwise(_told_apart(text, value, candidates)):
        if one[2] == two[2] or is_denied(text, *(two if one[2] else one)[:2]):
            continue
        start, end, _ = two if one[2] else one
        other = text[start:end]
        if offers_both(text[one[1] : two[0]], listed=other.lower() != "key"):  # a label, too
            return other
    return None


def said_of(answer: str, candidates: tuple[str, ...]) -> str | None:
    """The first of some values that an answer says, as it is written there, or None."""
    found = _any_of(candidates).search(plain(answer))
    return found[0] if found else None
