"""How large a haystack is: in pairs, in characters, or by the tokens that a whole prompt may have.

A token budget holds the prompt, chat template included, and the room for its answer. How many pairs
that is depends on the model's tokenizer and is found by counting.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import floor
from typing import Any, TypeAlias

from pytest_llmprobe.case import Case
from pytest_llmprobe.experiments.needle.haystack import random_pairs, render
from pytest_llmprobe.suite import Suite

PAIR = len(render(random_pairs(2, random.Random(0)))) // 2
"""Characters of a pair with what separates it from the next one: 80."""

Build: TypeAlias = Callable[[int], Iterable[Case]]
"""The cases of one haystack of so many pairs; none if they have no room in it."""


@dataclass(frozen=True)
class _Counted:
    count: int

    def __str__(self) -> str:
        return f"{self.count}-{type(self).__name__.lower()}"


class Pairs(_Counted):
    """So many pairs."""


class Characters(_Counted):
    """As many pairs as have room in so many characters, 80 each."""


class Tokens(_Counted):
    """As many pairs as leave room for the answer in so many tokens, counted with the prompt."""


Size: TypeAlias = Pairs | Characters | Tokens


def pairs(*counts: int) -> tuple[Pairs, ...]:
    """Sizes in pairs."""
    return tuple(map(Pairs, counts))


def tokens(*counts: int) -> tuple[Tokens, ...]:
    """Sizes in tokens of prompt and answer."""
    return tuple(map(Tokens, counts))


PAPER_SIZES = tokens(
    *(1_200, 2_500, 5_000, 10_000, 20_000, 32_000, 64_000, 128_000),
    *(180_000, 250_000, 500_000, 630_000),
)
"""Those of the paper, with the answer."""


def fit(size: Size, build: Build, suite: Suite, answer: int = 0) -> list[Case]:
    """The cases of the largest haystack that a size allows.

    For a token budget: every prompt fits with the room for its answer, and with one more pair some
    would not. A budget beyond the model's context is left out, which the report says.

    Args:
        size: What the haystack may take.
        build: Makes the cases for a number of pairs, the same each time; more pairs, more tokens.
        suite: Counts tokens.
        answer: Tokens to keep free for the answer to a case that names no ``max_new_tokens``.

    Returns:
        The cases, with ``size`` in their metadata, and for budgets ``pairs`` too; none if a budget
        is left out or has no room for the question.
    """
    if isinstance(size, Pairs):
        return [_with(case, size=size.count) for case in build(size.count)]
    if isinstance(size, Characters):
        n = size.count // PAIR
        sized = {"size": size.count, "characters": size.count, "pairs": n}
        return [_with(case, **sized) for case in build(n)] if n else []
    limit = suite.context_length
    if limit is not None and size.count > limit:
        suite.leave_out(str(size), f"the model's context is {limit:,} tokens")
        return []
    n, cases = _most(size.count, build, suite, answer)
    if not cases:
        suite.leave_out(f"cells of {size}", "question and answer leave no room for their pairs")
    return [_with(case, size=size.count, tokens=size.count, pairs=n) for case in cases]


def _most(budget: int, build: Build, suite: Suite, answer: int) -> tuple[int, list[Case]]:
    """The largest number of pairs whose cases take at most ``budget`` tokens, and these cases.

    A pair has a nearly constant number of tokens, so a guess is off by a few pairs and is corrected
    by counting, until a number fits and the next one does not.
    """
    counter: Any = suite.counter  # hashed by identity
    per_pair = _tokens_per_pair(counter)
    fits, fails = 0, max(1, budget) + 1  # a pair has a token at least
    best: list[Case] = []
    n = max(1, int(budget / per_pair))
    while fails - fits > 1:
        n = min(max(n, fits + 1), fails - 1)
        cases = list(build(n))
        most = max((_taken(case, suite, answer) for case in cases), default=0)
        spare = floor((budget - most) / per_pair)
        if most <= budget:
            fits, best = n, cases
            n += max(1, spare) if cases else 1
        else:
            fails = n
            n += min(-1, spare)
    return fits, best


def _taken(case: Case, suite: Suite, answer: int) -> int:
    return suite.tokens(case.prompt) + suite.answer_room.of(case.max_new_tokens or answer)


@lru_cache(maxsize=8)
def _tokens_per_pair(counter: Any) -> float:
    """Measured on two haystacks; what is around them cancels out."""
    suite = Suite(counter=counter)
    some = random_pairs(96, random.Random(0))
    return (suite.tokens(render(some)) - suite.tokens(render(some[:32]))) / 64


def _with(case: Case, **metadata: Any) -> Case:
    return replace(case, metadata={**case.metadata, **metadata})
