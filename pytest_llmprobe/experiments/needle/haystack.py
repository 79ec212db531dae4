"""Haystacks of UUID pairs: random pairs, where needles lie, conditional keys, text and back."""

from __future__ import annotations

import json
import random
import re
import uuid
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from pytest_llmprobe.errors import CasesError

Placement: TypeAlias = Literal["random", "clustered"]

SPECIAL = "*"
"""The character that marks a conditional needle's key."""


def _uuid_of(digit: str) -> re.Pattern[str]:
    shape = f"{digit}{{8}}-(?:{digit}{{4}}-){{3}}{digit}{{12}}"
    return re.compile(f"(?<![0-9a-fA-F-]){shape}(?![0-9a-fA-F-])")


UUID = _uuid_of("[0-9a-fA-F]")
UUID_OR_MARKED = _uuid_of("[0-9a-fA-F*]")

_HEX_PLACES = [place for place in range(36) if place not in (8, 13, 18, 23)]


class Pair(NamedTuple):
    """A key and its value, both UUIDs."""

    key: str
    value: str


def random_pairs(n: int, rng: random.Random) -> tuple[Pair, ...]:
    """``n`` pairs of version-4 UUIDs, all 2n different."""
    distinct: dict[str, None] = {}
    while len(distinct) < 2 * n:
        distinct[str(uuid.UUID(int=rng.getrandbits(128), version=4))] = None
    ids = list(distinct)
    return tuple(map(Pair, ids[::2], ids[1::2]))


def position(depth: float, n: int) -> int:
    """The index at a depth in per cent: 0 is the first of ``n`` pairs, 100 the last."""
    return round(depth / 100 * (n - 1))


def positions(n: int, needles: int, placement: Placement, rng: random.Random) -> tuple[int, ...]:
    """Where several needles lie among ``n`` pairs, in a random order.

    They lie anywhere (``random``) or next to each other (``clustered``).

    Raises:
        CasesError: There are too many needles, or the placement is unknown.
    """
    if placement not in ("random", "clustered"):
        raise CasesError(f"placement {placement!r}: use 'random' or 'clustered'")
    if not 1 <= needles <= n:
        raise CasesError(f"{needles} needles do not fit into a haystack of {n} pairs")
    if placement == "random":
        return tuple(rng.sample(range(n), needles))
    first = rng.randrange(n - needles + 1)
    return tuple(rng.sample(range(first, first + needles), needles))


def mark_keys(
    pairs: Sequence[Pair], positions: Sequence[int], rng: random.Random
) -> tuple[Pair, ...]:
    """The pairs, with one hex character of the key replaced by ``*`` at each position."""
    marked = list(pairs)
    keys = {pair.key for pair in pairs}
    for place in positions:
        key, value = pairs[place]
        new = key
        while new in keys:  # two keys may differ in the one character only
            at = rng.choice(_HEX_PLACES)
            new = key[:at] + SPECIAL + key[at + 1 :]
        keys.add(new)
        marked[place] = Pair(new, value)
    return tuple(marked)


def render(pairs: Sequence[Pair]) -> str:
    """The haystack as one JSON object on one line: 80 characters a pair."""
    return "{" + ", ".join(f'"{key}": "{value}"' for key, value in pairs) + "}"


def render_keys(keys: Sequence[str]) -> str:
    """Keys as a question lists them: in quotes, one a line."""
    return "\n".join(f'"{key}"' for key in keys)


def read_haystack(text: str) -> tuple[Pair, ...]:
    """The pairs of the last JSON object in a text, duplicate keys kept.

    Those of solved examples stand before it.

    Raises:
        CasesError: There is none, or it does not hold pairs of strings.
    """
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: pairs)
    pairs: list[tuple[str, Any]] = []
    start = text.find("{")
    while start >= 0:
        try:
            found, start = decoder.raw_decode(text, start)
            pairs = found or pairs
        except (ValueError, RecursionError):
            start += 1
        start = text.find("{", start)
    if not pairs or not all(isinstance(value, str) for _, value in pairs):
        raise CasesError("the prompt holds no JSON object of pairs of strings")
    return tuple(Pair(key, value) for key, value in pairs)
