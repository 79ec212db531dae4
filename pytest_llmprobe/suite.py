"""What the user asked of all evaluations: profile, seed, trials, data."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pytest_llmprobe.case import Prompt, RawPrompt, prompt_text

PROFILES = ("smoke", "ci", "full")
"""Sizes of the grids: seconds a family, a few minutes for everything, the papers' own."""

CHARACTERS_PER_TOKEN = 4
"""For models whose tokenizer cannot be had."""

ESTIMATED = f"tokens are estimated: {CHARACTERS_PER_TOKEN} characters each, for want of a tokenizer"


def seed_of(*key: str | int | float | None) -> int:
    """A 63-bit seed that depends on every part of ``key`` and on nothing else.

    The same on every machine and in every process, unlike ``hash()``, which is salted.
    """
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class TokenCounter(Protocol):
    """What tells a cases function about the model that it builds prompts for."""

    @property
    def context_length(self) -> int | None:
        """Most tokens of prompt and answer together, or None if there is no known limit."""

    def count(self, prompt: Prompt) -> int:
        """Tokens of a whole prompt, chat template included."""

    def ids(self, prompt: Prompt) -> list[int]:
        """Token ids of a whole prompt, as the model will read it."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""


@dataclass(frozen=True)
class Suite:
    """Passed to every cases function.

    Args:
        profile: ``smoke``, ``ci`` or ``full``: which grid to build.
        seed: Seed of all cases.
        trials: Repeats per cell of the grid, or None for the evaluation's own number.
        datasets: What the user named with ``--llmprobe-dataset``, by name.
        asked: Names that cases functions asked for, given or not.
        counter: Counts the model's tokens; None if its tokenizer cannot be had.
        remarks: What the report is to say of an experiment's cases: a reason, and what it concerns.
    """

    profile: str = "ci"
    seed: int = 0
    trials: int | None = None
    datasets: Mapping[str, Any] = field(default_factory=dict, compare=False)
    asked: set[str] = field(default_factory=set, compare=False, repr=False)
    counter: TokenCounter | None = field(default=None, compare=False, repr=False)
    remarks: dict[str, list[str]] = field(default_factory=dict, compare=False, repr=False)

    def random(self, *key: str | int | float) -> random.Random:
        """A generator seeded from the suite's seed and ``key`` (experiment, case or group id)."""
        return random.Random(seed_of(self.seed, *key))

    def dataset(self, name: str) -> Any:
        """The data that the user gives with ``--llmprobe-dataset NAME=SOURCE``, or None.

        An `data.sources.Dataset`: ``sample(characters=...)`` for texts, ``rows()``,
        ``document()``.
        """
        self.asked.add(name)
        return self.datasets.get(name)

    @property
    def context_length(self) -> int | None:
        """Most tokens that the model takes, prompt and answer together; None if it is not known."""
        return None if self.counter is None else self.counter.context_length

    def tokens(self, prompt: Prompt) -> int:
        """Tokens of a whole prompt as the model will read it, chat template included.

        Counted with the model's own tokenizer and without the model. Where there is none, as for a
        model behind an API, 4 characters count as a token, and the report says so.
        """
        if self.counter is not None:
            return self.counter.count(prompt)
        self.remarks.setdefault(ESTIMATED, [])
        return -(-len(prompt_text(prompt)) // CHARACTERS_PER_TOKEN)

    def split(self, text: str, prefix: int, suffix: int) -> tuple[RawPrompt, str]:
        """The first tokens of a text as a prompt to be continued, and the text of those after it.

        Cut between the model's own tokens, so that a model that goes on with the tokens of the
        text says that text. Where there is no tokenizer, 4 characters count as a token.

        Args:
            text: The text.
            prefix: Tokens of the prompt at most, BOS included; half of those of a short text.
            suffix: Tokens after it at most.
        """
        if self.counter is None:
            self.remarks.setdefault(ESTIMATED, [])
            cut = min(prefix * CHARACTERS_PER_TOKEN, (len(text) + 1) // 2)
            return RawPrompt(text[:cut]), text[cut : cut + suffix * CHARACTERS_PER_TOKEN]
        ids = self.counter.ids(RawPrompt(text))
        cut = min(prefix, (len(ids) + 1) // 2)
        first, after = ids[:cut], ids[cut : cut + suffix]
        return RawPrompt(self.counter.decode(first), tuple(first)), self.counter.decode(after)

    def leave_out(self, what: str, why: str) -> None:
        """Have terminal and report say that a part of the grid is left out, and why."""
        concerned = self.remarks.setdefault(why, [])
        if what not in concerned:
            concerned.append(what)

    def said(self) -> list[str]:
        """The remarks, a line each."""
        return [
            f"left out {', '.join(what)}: {why}" if what else why
            for why, what in self.remarks.items()
        ]
