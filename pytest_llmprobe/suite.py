"""What the user asked of all evaluations: profile, seed, trials, data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from random import Random
from typing import Any, Protocol

from pytest_llmprobe.case import Case, Prompt, RawPrompt, prompt_text
from pytest_llmprobe.errors import CasesError

PROFILES = ("smoke", "ci", "full")
"""Sizes of the grids: seconds a family, a few minutes for everything, the papers' own."""

CHARACTERS_PER_TOKEN = 4
"""For models whose tokenizer cannot be had."""

ESTIMATED = f"tokens are estimated: {CHARACTERS_PER_TOKEN} characters each, for want of a tokenizer"


MARGIN = 48
"""Tokens of an answer for the words around what it has to say: an ordinary sentence."""


def seed_of(*key: str | int | float | None) -> int:
    """A 63-bit seed that depends on every part of ``key`` and on nothing else.

    The same on every machine and in every process, unlike ``hash()``, which is salted.
    """
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class TokenCounter(Protocol):
    """What tells a cases function about the model that it builds prompts for."""

    @property
    def has_template(self) -> bool:
        """Whether prompts go through a chat template."""

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
class AnswerRoom:
    """What the user makes of the room that evaluations give to answers.

    Args:
        tokens: Room of every answer; None: what the evaluation says, times ``factor``.
        factor: Makes it larger or smaller.
    """

    tokens: int | None = None
    factor: float = 1.0

    def __str__(self) -> str:
        """As the user writes it; ``x1`` where nothing is changed."""
        return str(self.tokens) if self.tokens else f"x{self.factor:g}"

    def of(self, max_new_tokens: int) -> int:
        """What becomes of an evaluation's own room."""
        return self.tokens or max(min(1, max_new_tokens), ceil(max_new_tokens * self.factor))


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
        chats: Whether the model is sent chat messages; None: it is if its tokenizer has a template.
        few_shot: Solved examples before a question; None: one for a model that continues texts.
        ask: How rows of data are asked: as a ``text`` to be continued, in one chat ``message``, or
            with each example as two ``turns``; None: as the evaluation does.
        answer_room: What becomes of the room that a case names.
        remarks: What the report is to say of an experiment's cases: a reason, and what it concerns.
    """

    profile: str = "ci"
    seed: int = 0
    trials: int | None = None
    datasets: Mapping[str, Any] = field(default_factory=dict, compare=False)
    asked: set[str] = field(default_factory=set, compare=False, repr=False)
    counter: TokenCounter | None = field(default=None, compare=False, repr=False)
    chats: bool | None = None
    few_shot: int | None = None
    ask: str | None = None
    answer_room: AnswerRoom = AnswerRoom()
    remarks: dict[str, list[str]] = field(default_factory=dict, compare=False, repr=False)

    def random(self, *key: str | int | float) -> Random:
        """A generator seeded from the suite's seed and ``key`` (experiment, case or group id)."""
        return Random(seed_of(self.seed, *key))

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

    def room(self, *texts: str, margin: int = MARGIN) -> int:
        """Tokens of an answer that says some texts, in the model's own tokens.

        Without a tokenizer each byte is a token, and no tokenizer needs more.

        Args:
            texts: What an answer has to say or may repeat: the target, the question's keys.
            margin: Tokens for the words around them.
        """
        if self.counter is None:
            return margin + sum(len(text.encode()) for text in texts)
        return margin + sum(self.counter.count(RawPrompt(text)) for text in texts if text)

    @property
    def continues(self) -> bool:
        """Whether the model has no chat template: it goes on with a text."""
        if self.chats is not None:
            return not self.chats
        return self.counter is not None and not self.counter.has_template

    def with_examples(
        self, case: Case, example: Callable[[Random], tuple[str, str]], end: str = "\n"
    ) -> Case:
        """A case as this model can be asked it.

        One that continues texts sees a solved example first, and its answer ends with the line:
        what it makes up after it is not read.

        Args:
            case: Its prompt is a text that ends in the question's cue.
            example: Draws a question of the same form about a text of its own: prompt and answer.
                Cases of a group see the same ones.
            end: What ends an answer of a model that continues texts.

        Raises:
            CasesError: The prompt is no text.
        """
        if not isinstance(case.prompt, str):
            raise CasesError(f"case {case.id!r}: only a text has room for examples before it")
        examples = self.few_shot if self.few_shot is not None else int(self.continues)
        rng = self.random("few_shot", case.group or case.id)
        solved = (example(rng) for _ in range(examples))
        before = "".join(f"{prompt} {answer}\n\n" for prompt, answer in solved)
        stop = (*case.stop, end) if self.continues else case.stop
        return replace(case, prompt=before + case.prompt, stop=stop)

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
