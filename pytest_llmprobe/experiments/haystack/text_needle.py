"""A needle in text: one sentence with a made-up fact, hidden in prose, and a question about it.

Follows experiment 2 of the GUIDE paper (arXiv 2409.19001). Names and values are drawn for each
case, so that nothing can be known from training.

Example: ``The magic number of Velmora is 482913.`` answers ``What is the magic number of
Velmora?`` with ``482913``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

from pytest_llmprobe.case import Case, Prompt, prompt_text
from pytest_llmprobe.data.prose import CITIES, NOUNS, made_up_name
from pytest_llmprobe.data.prose import sentence as random_sentence
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.answers import plain
from pytest_llmprobe.experiments.haystack.reading import affirms, alternative, said_of, values_in
from pytest_llmprobe.experiments.haystack.reading import says as says
from pytest_llmprobe.experiments.settled import WITHDRAWN, Asked
from pytest_llmprobe.generation import Completion

Kind: TypeAlias = Literal["number", "word", "city"]
Where: TypeAlias = Literal["end", "start", "both"]

KINDS: dict[Kind, str] = {"number": "magic number", "word": "secret word", "city": "home city"}
"""What a fact of each kind is about."""

CHANCE: dict[Kind, float] = {
    "number": 1 / (10**7 - 10**4),
    "word": 1 / len(NOUNS),
    "city": 1 / len(CITIES),
}
"""The probability of a blind guess; of a number, if all of them were equally likely."""

_CANDIDATES: dict[Kind, tuple[str, ...]] = {"number": (), "word": NOUNS, "city": CITIES}

_INTRODUCTION = "Read the text below and answer the question with the value alone.\n\n"
PROMPTS: dict[Where, str] = {
    "end": _INTRODUCTION + "{text}\n\nQuestion: {question}\nAnswer:",
    "start": _INTRODUCTION + "Question: {question}\n\n{text}\n\nAnswer:",
    "both": _INTRODUCTION + "Question: {question}\n\n{text}\n\nQuestion: {question}\nAnswer:",
}
"""Templates by the place of the question; with ``end``, questions share the text as a prefix."""

_KIND_OF: dict[str, Kind] = {label: kind for kind, label in KINDS.items()}
_LABELS = "|".join(_KIND_OF)
_QUESTION = re.compile(rf"^Question: What is the ({_LABELS}) of (.+)\?$", re.MULTILINE)
_FACT = re.compile(rf"\bThe ({_LABELS}) of (\w+) is (\w+)\.")
_SENTENCE_END = re.compile(r"[.!?\u2026]+[\"')\]\u00bb\u201d\u2019]*(?=\s|\Z)|[\u3002\uff01\uff1f]")
_ABBREVIATION = re.compile(r"\b(?:[A-Z]|Mr|Mrs|Ms|Dr|St|Prof|Rev|Capt|Col|Gen|No|vs|i\.e|e\.g)\.\Z")


@dataclass(frozen=True)
class Fact:
    """What a needle says."""

    kind: Kind
    name: str  # whom or what the fact is about: invented
    value: str  # the answer: 5 to 7 digits, a noun or a city

    @property
    def sentence(self) -> str:
        """The needle."""
        return f"The {KINDS[self.kind]} of {self.name} is {self.value}."

    @property
    def question(self) -> str:
        """What is asked."""
        return f"What is the {KINDS[self.kind]} of {self.name}?"


def made_up_fact(rng: random.Random, *, held_out: bool = True, kind: Kind | None = None) -> Fact:
    """A fact that nobody can know, of any kind if none is given.

    Its name is ``held_out``, one that training never sees, or one that it may see.

    Raises:
        CasesError: The kind is unknown.
    """
    kind = kind or rng.choice(tuple(KINDS))
    if kind not in KINDS:
        raise CasesError(f"kind {kind!r}: use one of {', '.join(KINDS)}")
    name = made_up_name(rng, held_out=held_out)
    if kind == "number":
        digits = rng.randint(5, 7)
        return Fact(kind, name, str(rng.randrange(10 ** (digits - 1), 10**digits)))
    return Fact(kind, name, rng.choice(NOUNS if kind == "word" else CITIES))


def decoys(fact: Fact, n: int, rng: random.Random, *, held_out: bool = True) -> list[Fact]:
    """``n`` facts of the same kind about other names, all names and values different.

    Raises:
        CasesError: There are not so many values.
    """
    if fact.kind != "number" and n >= (limit := len(NOUNS if fact.kind == "word" else CITIES)):
        raise CasesError(f"{n} decoys of the kind {fact.kind!r}: there are only {limit} values")
    names, values = {fact.name}, {fact.value}
    drawn: list[Fact] = []
    while len(drawn) < n:
        other = made_up_fact(rng, held_out=held_out, kind=fact.kind)
        if other.name not in names and other.value not in values:
            names.add(other.name)
            values.add(other.value)
            drawn.append(other)
    return drawn


def sentence_ends(text: str) -> list[int]:
    """The places after the sentences of a text; 0, where a sentence may stand too, comes first."""
    ends = [0]
    for match in _SENTENCE_END.finditer(text):
        abbreviation = _ABBREVIATION.search(text, max(0, match.end() - 8), match.end())
        goes_on = text[match.end() : match.end() + 2].strip().islower()
        if not goes_on and (not abbreviation or match.end() == len(text)):
            ends.append(match.end())
    return ends


def insert(text: str, sentence: str, depth: float) -> tuple[str, float]:
    """Insert a sentence at the sentence end at or before a depth in per cent; nothing is deleted.

    Returns:
        The text with the sentence, and the depth really reached in per cent of the old text.

    Raises:
        CasesError: The depth is not between 0 and 100.
    """
    if not 0 <= depth <= 100:
        raise CasesError(f"depth {depth!r} is not between 0 and 100 per cent")
    aim = len(text) * depth / 100
    place = max(end for end in sentence_ends(text) if end <= aim)
    if not text:
        return sentence, 0.0
    if place == 0:
        return f"{sentence} {text}", 0.0
    return f"{text[:place]} {sentence}{text[place:]}", 100 * place / len(text)


def generated(size: int, rng: random.Random) -> str:
    """Generated prose of at most ``size`` characters, cut like `cut`."""
    sentences: list[str] = []
    length = 0
    while length <= size:
        sentences.append(random_sentence(rng))
        length += len(sentences[-1]) + 1
    return cut(" ".join(sentences), size)


def excerpt(text: str, size: int, rng: random.Random) -> str:
    """A piece of at most ``size`` characters from anywhere in a text, from sentence to sentence.

    Raises:
        CasesError: The text is shorter.
    """
    if len(text) < size:
        raise CasesError(f"{len(text)} characters of text are too few for a haystack of {size}")
    start = rng.choice([end for end in sentence_ends(text) if end <= len(text) - size])
    return cut(text[start:].lstrip(), size)


def cut(text: str, size: int) -> str:
    """A text up to the last sentence end within its first ``size`` characters.

    Up to the last white space there, if more than half would be lost.
    """
    if len(text) <= size:
        return text
    end = max(end for end in sentence_ends(text[: size + 2]) if end <= size)
    if end >= size / 2:
        return text[:end]
    words = text[:size].rsplit(maxsplit=1)
    return words[0] if words else ""  # nothing but white space


def prompt(text: str, question: str, where: Where = "end") -> str:
    """The prompt that asks a question about a text.

    Raises:
        CasesError: There is no such place for the question.
    """
    if where not in PROMPTS:
        raise CasesError(f"where {where!r}: use 'end', 'start' or 'both'")
    return PROMPTS[where].format(text=text, question=question)


def read_task(prompt: Prompt) -> tuple[Fact, list[Fact]]:
    """The fact that a prompt asks for, and the other facts that its text states: decoys.

    Raises:
        CasesError: The prompt asks for nothing, or its text gives no or several answers.
    """
    text = prompt_text(prompt)
    asked = _QUESTION.findall(text)
    if not asked:
        raise CasesError("the prompt holds no question about a made-up fact")
    label, name = asked[-1]
    stated = [Fact(_KIND_OF[label], name, value) for label, name, value in _FACT.findall(text)]
    said = {fact for fact in stated if (fact.kind, fact.name) == (_KIND_OF[label], name)}
    if len(said) != 1:
        raise CasesError(f"the text names {len(said)} values for the {label} of {name}")
    (fact,) = said
    return fact, [other for other in stated if other != fact]


def solve(prompt: Prompt) -> str:
    """The reference solver: the answer from the prompt's text alone.

    Raises:
        CasesError: The prompt cannot be solved.
    """
    return read_task(prompt)[0].value


def _said_others(answer: str, fact: Fact, others: Iterable[Fact]) -> list[Fact]:
    wrong = (other for other in others if other.value.lower() != fact.value.lower())
    return [other for other in wrong if affirms(answer, other.value)]


def _hedge(answer: str, fact: Fact) -> str | None:
    """A value of the fact's kind that is offered beside it, in the text or invented."""
    return alternative(answer, fact.value, _CANDIDATES[fact.kind])


def passed(answer: str, fact: Fact, others: Iterable[Fact] = ()) -> bool:
    """Whether an answer says a fact's value, and no other one beside it.

    No other candidate, a decoy in the text, may occur at all; other values of the fact's kind may,
    but not as an alternative (``482913 or 482914``).
    """
    return explain(answer, fact, others).startswith("correct:")


def explain(answer: str, fact: Fact, others: Iterable[Fact] = (), *, cut_off: bool = False) -> str:
    """How an answer did: a word of the taxonomy, a colon, a sentence.

    What the answer takes back does not count, and where it says what is final, that decides.

    ``correct``, ``hedged``, ``denied``, ``withdrawn``, ``decoy``, ``cut_off``, ``glued``,
    ``no_answer``, ``other_value`` or ``no_value``.
    """
    others = list(others)
    said = Asked(
        partial(values_in, value=fact.value, candidates=_CANDIDATES[fact.kind]),
        1,
        lambda text: _explain(text, fact, others, cut_off),
        lambda said: said.startswith("correct:"),
        lambda value: says(value, fact.value),
    ).verdict(plain(answer))
    return said or WITHDRAWN


def _explain(answer: str, fact: Fact, others: Iterable[Fact], cut_off: bool) -> str:
    wrong = _said_others(answer, fact, others)
    if says(answer, fact.value):
        if wrong:
            return f"hedged: it says {fact.value}, and {wrong[0].value} of {wrong[0].name} too"
        if not affirms(answer, fact.value):
            return f"denied: it says that it is not {fact.value}"
        if other := _hedge(answer, fact):
            return f"hedged: it says {fact.value}, and {other[:20]} too"
        return f"correct: it says {fact.value}"
    if wrong:
        return f"decoy: it says {wrong[0].value}, which belongs to {wrong[0].name}"
    other = _other_value(answer, fact.kind)
    if cut_off and (other is None or answer.rstrip().endswith(other)):
        return "cut_off: max_new_tokens ran out before the answer was complete"
    if not answer.strip():
        return "no_answer: the answer is empty"
    if fact.value.lower() in answer.lower():
        return f"glued: {fact.value} occurs only as a part of something longer"
    if other:
        return f"other_value: it says {other}, not {fact.value}"
    return f"no_value: the answer holds no {KINDS[fact.kind]}"


def why_missed(case: Case, completion: Completion) -> str:
    """How an answer to a case failed, in the words of `explain`; nothing if it is right.

    Raises:
        CasesError: The prompt cannot be read.
    """
    fact, others = read_task(case.prompt)
    is_cut = completion.finish_reason == "length"
    said = explain(completion.text, fact, others, cut_off=is_cut)
    return "" if said.startswith("correct:") else said


def _other_value(answer: str, kind: Kind) -> str | None:
    if kind == "number":
        number = re.search(r"\d[\d.,]*", answer)
        return number[0].rstrip(".,")[:20] if number else None
    return said_of(answer, _CANDIDATES[kind])
