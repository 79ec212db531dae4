"""Threads in a haystack: pairs whose value is the key of the next one, alone, many or branched."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.needle.haystack import Pair, random_pairs

Direction: TypeAlias = Literal["forward", "backward", "random"]


@dataclass(frozen=True)
class Thread:
    """Pairs whose value is the key of the next one."""

    pairs: tuple[Pair, ...]  # the whole haystack
    positions: tuple[int, ...]  # of the thread's pairs, in the order in which it is followed

    @property
    def start(self) -> str:
        """The key to start from."""
        return self.pairs[self.positions[0]].key

    @property
    def keys(self) -> list[str]:
        """The keys that are met, from the start on."""
        return [self.pairs[place].key for place in self.positions]

    @property
    def target(self) -> str:
        """The value at the thread's end."""
        return self.pairs[self.positions[-1]].value


def thread(n: int, hops: int, direction: Direction, rng: random.Random) -> Thread:
    """A haystack of ``n`` pairs with one thread of ``hops`` pairs in it; see `multi_threads`."""
    return multi_threads(n, hops, 1, direction, rng)[0]


def multi_threads(
    n: int, hops: int, count: int, direction: Direction, rng: random.Random
) -> tuple[Thread, ...]:
    """A haystack of ``n`` pairs with ``count`` threads of ``hops`` pairs that share no pair.

    The key at each position of a thread but the first is overwritten by the value before it.

    Args:
        n: Pairs in the haystack, at least ``count * hops``.
        hops: Pairs in each thread, from 1 up.
        count: How many threads there are, from 1 up.
        direction: ``forward``: each next pair lies later in the haystack; ``backward``: earlier;
            ``random``: anywhere.
        rng: Draws keys, values and positions.

    Returns:
        The threads, all with the same ``pairs``.

    Raises:
        CasesError: The threads do not fit into the haystack.
    """
    if min(hops, count) < 1 or hops * count > n:
        raise CasesError(f"{count} x {hops} pairs of threads do not fit into a haystack of {n}")
    drawn = rng.sample(range(n), count * hops)
    routes = [_ordered(drawn[at : at + hops], direction) for at in range(0, count * hops, hops)]
    pairs = list(random_pairs(n, rng))
    for route in routes:
        for before, after in pairwise(route):
            pairs[after] = Pair(pairs[before].value, pairs[after].value)
    return tuple(Thread(tuple(pairs), tuple(route)) for route in routes)


def branched_thread(
    n: int, hops: int, branches: int, direction: Direction, rng: random.Random
) -> Thread:
    """A haystack of ``n`` pairs with a thread whose keys but the last occur several times.

    At each step but the last, ``branches`` pairs carry the current value as their key; the value
    of one of them is a key again, the others end there. The last step has one pair, or else
    several threads would be the longest. That makes ``branches * (hops - 1) + 1`` pairs.

    Args:
        n: Pairs in the haystack.
        hops: Pairs in the longest thread, from 2 up.
        branches: Pairs with the same key, from 2 up.
        direction: As above; all pairs of a step lie after (before) those of the last one.
        rng: Draws keys, values, positions and the branch that goes on.

    Returns:
        The longest thread.

    Raises:
        CasesError: The thread does not fit into the haystack, or has no branches.
    """
    if min(hops, branches) < 2:
        raise CasesError(f"{hops} hops with {branches} branches: use 2 or more of both")
    needed = branches * (hops - 1) + 1
    if needed > n:
        raise CasesError(
            f"{hops} hops with {branches} branches are {needed} pairs; they do not fit into a "
            f"haystack of {n}"
        )
    drawn = _ordered(rng.sample(range(n), needed), direction)
    steps = [drawn[at : at + branches] for at in range(0, needed, branches)]
    route = [rng.choice(step) for step in steps]
    pairs = list(random_pairs(n, rng))
    key = pairs[route[0]].key
    for goes_on, step in zip(route, steps, strict=True):
        for place in step:
            pairs[place] = Pair(key, pairs[place].value)
        key = pairs[goes_on].value
    return Thread(tuple(pairs), tuple(route))


def _ordered(positions: list[int], direction: Direction) -> list[int]:
    """The positions in the order in which a thread of this direction visits them."""
    if direction not in ("forward", "backward", "random"):
        raise CasesError(f"direction {direction!r}: use 'forward', 'backward' or 'random'")
    if direction == "random":
        return positions
    return sorted(positions, reverse=direction == "backward")
