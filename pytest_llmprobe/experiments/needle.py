"""Key-value needles and threads over UUID pairs.

Follows "Needle Threading: Can LLMs Follow Threads through Near-Million-Scale Haystacks?" (Roberts,
Han, Albanie, arXiv 2411.05000): a haystack is an ordered list of random (key, value) pairs,
rendered as one JSON object. A list and not a dict, because branched threads repeat keys.
"""

from __future__ import annotations

import json
import random
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

from pytest_llmprobe.case import Case, Prompt, prompt_text
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.generation import Completion

Direction: TypeAlias = Literal["forward", "backward", "random"]

_HEX = "[0-9a-fA-F]"
UUID = re.compile(
    rf"(?<![0-9a-fA-F-]){_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}(?![0-9a-fA-F-])"
)


class Pair(NamedTuple):
    """A key and its value, both UUIDs."""

    key: str
    value: str


@dataclass(frozen=True)
class Thread:
    """Pairs whose value is the key of the next one.

    Args:
        pairs: The whole haystack.
        positions: Where the thread's pairs are, in the order in which it is followed.
    """

    pairs: tuple[Pair, ...]
    positions: tuple[int, ...]

    @property
    def start(self) -> str:
        """The key to start from."""
        return self.pairs[self.positions[0]].key

    @property
    def target(self) -> str:
        """The value at the thread's end."""
        return self.pairs[self.positions[-1]].value


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


def thread(n: int, hops: int, direction: Direction, rng: random.Random) -> Thread:
    """A haystack of ``n`` pairs with a thread of ``hops`` pairs in it.

    The key at each position of the thread but the first is overwritten by the value before it.

    Args:
        n: Pairs in the haystack.
        hops: Pairs in the thread, from 1 to ``n``.
        direction: ``forward``: each next pair lies later in the haystack; ``backward``: earlier;
            ``random``: anywhere.
        rng: Draws keys, values and positions.

    Raises:
        CasesError: The thread does not fit into the haystack.
    """
    if direction not in ("forward", "backward", "random"):
        raise CasesError(f"direction {direction!r}: use 'forward', 'backward' or 'random'")
    if not 1 <= hops <= n:
        raise CasesError(f"a thread of {hops} pairs does not fit into a haystack of {n}")
    positions = rng.sample(range(n), hops)
    if direction != "random":
        positions.sort(reverse=direction == "backward")
    pairs = list(random_pairs(n, rng))
    for before, after in pairwise(positions):
        pairs[after] = Pair(pairs[before].value, pairs[after].value)
    return Thread(tuple(pairs), tuple(positions))


def render(pairs: Sequence[Pair]) -> str:
    """The haystack as one JSON object on one line: 80 characters a pair."""
    return "{" + ", ".join(f'"{key}": "{value}"' for key, value in pairs) + "}"


def read_haystack(text: str) -> tuple[Pair, ...]:
    """The pairs of the first JSON object in a text, duplicate keys kept.

    Raises:
        CasesError: There is none, or it does not hold pairs of strings.
    """
    start = text.find("{")
    try:
        decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: pairs)
        pairs, _ = decoder.raw_decode(text, max(start, 0))
    except (ValueError, RecursionError):
        pairs = []
    if not pairs or not all(isinstance(value, str) for _, value in pairs):
        raise CasesError("the prompt holds no JSON object of pairs of strings")
    return tuple(Pair(key, value) for key, value in pairs)


def read_question(text: str) -> str:
    """The key that a prompt asks for: the only UUID after its haystack.

    Raises:
        CasesError: None or several.
    """
    asked = UUID.findall(text[text.rfind("}") + 1 :])
    if len(asked) != 1:
        raise CasesError(f"the prompt asks for {len(asked)} keys, expected one")
    return str(asked[0])


def follow(pairs: Sequence[Pair], key: str) -> list[str]:
    """The values met from ``key`` until one is no key: the thread, its end last."""
    values = dict(pairs)
    met: list[str] = []
    while key in values and values[key] not in met:
        key = values[key]
        met.append(key)
    return met


def solve(prompt: Prompt) -> str:
    """The reference solver: the answer from the prompt's text alone.

    A single needle is a thread of one pair, so one solver serves both.

    Raises:
        CasesError: The prompt cannot be solved.
    """
    text = prompt_text(prompt)
    key = read_question(text)
    values = follow(read_haystack(text), key)
    if not values:
        raise CasesError(f"the key {key} is not in the haystack")
    return values[-1]


@dataclass(frozen=True)
class Answer:
    """The UUIDs of a completion, in lower case and in order.

    Args:
        uuids: All of them.
        cut_off: The completion ended because it had no tokens left.
    """

    uuids: tuple[str, ...]
    cut_off: bool = False

    @property
    def first(self) -> str | None:
        """The first one: the lenient reading."""
        return self.uuids[0] if self.uuids else None

    @property
    def only(self) -> str | None:
        """The one UUID that the answer holds, or None if there are none or different ones."""
        return self.uuids[0] if len(set(self.uuids)) == 1 else None

    def explain(self, case: Case) -> str:
        """How the answer failed: a word of the taxonomy, a colon, a sentence.

        ``start_key``, ``stopped_k_hops_early``, ``other_value_in_haystack``,
        ``other_key_in_haystack``, ``invented_uuid``, ``no_uuid`` or ``cut_off``.
        """
        wrong = next((found for found in self.uuids if found != case.target), None)
        if wrong is None and self.cut_off:
            return "cut_off: max_new_tokens ran out before the answer was complete"
        if wrong is None:
            return "no_uuid: the answer holds no UUID"
        text = prompt_text(case.prompt)
        pairs, start = read_haystack(text), read_question(text)
        path = follow(pairs, start)
        if wrong == start:
            return f"start_key: it gives the key {wrong} that was asked for"
        if wrong in path:
            hops = len(path) - 1 - path.index(wrong)
            return f"stopped_{hops}_hops_early: {wrong} is on the thread"
        if any(wrong == pair.value for pair in pairs):
            return f"other_value_in_haystack: {wrong} belongs to another key"
        if any(wrong == pair.key for pair in pairs):
            return f"other_key_in_haystack: {wrong} is another key"
        return f"invented_uuid: {wrong} is not in the haystack"


def parse_answer(completion: Completion) -> Answer:
    """The UUIDs of a model's answer; half of one at the end does not count."""
    uuids = tuple(found.lower() for found in UUID.findall(completion.text))
    return Answer(uuids, cut_off=completion.finish_reason == "length")
