"""What all questions about haystacks share: in what form values are wanted, and room for them."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_llmprobe.suite import MARGIN, Suite

EXAMPLE = 4
"""Pairs of a solved example's haystack."""

PER_ITEM = 24
"""Tokens of an answer for the words and marks around each further value of a list."""


def form(suite: Suite, what: str = "") -> str:
    """How a list is to be given: ``one value a line``, if it is one of values.

    A model that continues texts has one line for all of them.
    """
    if suite.continues:
        return f"all {what}s on one line" if what else "all on one line"
    return f"one {what} a line" if what else "one a line"


def listed(suite: Suite, values: Sequence[str]) -> str:
    """Values in that form, as a solved example gives them."""
    return (", " if suite.continues else "\n").join(values)


def room(suite: Suite, targets: Sequence[str], keys: Sequence[str]) -> int:
    """Tokens for an answer that gives some values and says the keys that lead to them twice.

    So do a sentence about the key before an object of key and value, and the steps of a thread,
    each of which is a value first and a key then.
    """
    return suite.room(*targets, *keys, *keys, margin=MARGIN + PER_ITEM * (len(targets) - 1))
