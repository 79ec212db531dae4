"""The short word for why a case missed."""

from __future__ import annotations

import re

CUT_OFF = "cut_off"
"""The failure of an answer that had no room to become complete."""

OTHER = "other"
"""A failure without words of its own."""

MAX_WORDS, MAX_LENGTH = 6, 40
"""Words and characters of a sentence that stand for it."""

_VERDICT = re.compile(r"([^\W\d]\w*):(?:\s|\Z)")
_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*(?!\w)")


def verdict_word(explanation: str) -> str | None:
    """The word that a verdict begins with, ``start_key`` of ``start_key: it gives the key ...``.

    A number within it is an ``n``: ``stopped_n_hops_early``. None if the explanation is no verdict.
    """
    found = _VERDICT.match(explanation)
    if found is None or len(found[1]) > MAX_LENGTH:
        return None
    return _NUMBER.sub("n", found[1].lower())


def failure_word(explanation: str) -> str:
    """What the explanation of a miss says in a word: a verdict's.

    Of an assertion in a user's own words the first ones up to a number, a quotation or a mark,
    because what follows tells cases apart rather than kinds; ``other`` if there are none.
    """
    if (word := verdict_word(explanation)) is not None:
        return word
    if explanation.startswith(("assert ", "the assertion failed")):
        return OTHER  # pytest's picture of the compared values
    end = 0
    for _ in range(MAX_WORDS):
        found = _WORD.match(explanation, end + bool(end), MAX_LENGTH + 1)
        if found is None or found.end() > MAX_LENGTH:
            break
        end = found.end()
        if explanation[end : end + 1] != " ":
            break
    return explanation[:end].lower() or OTHER
