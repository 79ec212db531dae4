"""Variables that are assigned to one another within prose: which of them have a value?

After RULER's variable tracking (arXiv 2404.06654), with several chains of which one is asked for.

Example: ``VAR KLMPQ = 48213. ... VAR BCDFG = VAR KLMPQ.`` gives 48213 to KLMPQ and BCDFG.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from pytest_llmprobe.case import Prompt, prompt_text
from pytest_llmprobe.data.prose import sentence
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.haystack.items import Items

CONSONANTS = "BCDFGHJKLMNPQRSTVWXZ"
"""Of names, so that none of them is a word."""

_LOOKS = f"[{CONSONANTS}]{{5}}"
_ASSIGNED = re.compile(rf"\bVAR ({_LOOKS}) = (?:VAR ({_LOOKS})|(\d+))(?=\.)")
_ASKED = re.compile(r"^Value: (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Chain:
    """Variables of one value, in the order in which it is handed on."""

    value: str
    names: tuple[str, ...]

    @property
    def sentences(self) -> list[str]:
        """The assignments."""
        before = [self.value, *(f"VAR {name}" for name in self.names)]
        pairs = zip(self.names, before, strict=False)
        return [f"VAR {name} = {source}." for name, source in pairs]


def made_up_chains(count: int, hops: int, rng: random.Random) -> list[Chain]:
    """Chains without a common variable or value; the first variable is given its value itself.

    Args:
        count: How many chains.
        hops: How often a value is handed on: a chain has one variable more.
        rng: Draws names and values.
    """
    values = rng.sample(range(10_000, 100_000), count)
    names: dict[str, None] = {}
    while len(names) < count * (hops + 1):
        names["".join(rng.choices(CONSONANTS, k=5))] = None
    each, length = list(names), hops + 1
    return [
        Chain(str(value), tuple(each[at * length : (at + 1) * length]))
        for at, value in enumerate(values)
    ]


def scattered(chains: list[Chain], size: int, rng: random.Random) -> str:
    """Generated prose of at most about ``size`` characters with the assignments of some chains.

    They stand anywhere between its sentences, those of one chain in order.
    """
    placed: list[tuple[float, str]] = []
    for chain in chains:
        places = sorted(rng.random() for _ in chain.names)
        placed += zip(places, chain.sentences, strict=True)
    prose: list[str] = []
    length = sum(len(text) + 1 for _, text in placed)
    while length + len(following := sentence(rng)) < size:
        prose.append(following)
        length += len(following) + 1
    placed += [((at + 0.5) / len(prose), text) for at, text in enumerate(prose)]
    return " ".join(text for _, text in sorted(placed))


def read_task(prompt: Prompt) -> Items:
    """The variables that have the value that a prompt asks for last, and all others.

    The reference solver: from the prompt's text alone.

    Raises:
        CasesError: Nothing is asked, or no variable has the value.
    """
    text = prompt_text(prompt)
    asked = _ASKED.findall(text)
    if not asked:
        raise CasesError("the prompt asks for no variables of a value")
    values: dict[str, str | None] = {}
    for name, source, value in _ASSIGNED.findall(text):
        values[name] = value or values.get(source)
    required = tuple(name for name, value in values.items() if value == asked[-1])
    if not required:
        raise CasesError(f"no variable has the value {asked[-1]}")
    return Items(required, tuple(values), _LOOKS, "variable")
