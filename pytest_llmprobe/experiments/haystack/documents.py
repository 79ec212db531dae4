"""Questions about one or two of several documents: made up, or rows in SQuAD's layout.

After RULER's question answering (arXiv 2404.06654), where documents of other questions stand
around the golden one.  Two hops as in HotpotQA: one document names a person, another one the
answer.

Example: ``Osmira Tarkeln founded Velmora.`` and ``Osmira Tarkeln grew up in Lyon.`` answer ``In
which city did the person grow up who founded Velmora?`` with ``Lyon``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_llmprobe.case import Prompt, prompt_text
from pytest_llmprobe.data.prose import CITIES, NOUNS, made_up_name, prose
from pytest_llmprobe.data.rows import Row
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.answers import plain
from pytest_llmprobe.experiments.haystack.reading import affirms
from pytest_llmprobe.experiments.haystack.text_needle import Fact, explain
from pytest_llmprobe.generation import Completion
from pytest_llmprobe.suite import Suite

_GREW = re.compile(r"\b(\w+) (?:grew up in|spent every summer of a long childhood in) (\w+)\.")
_FOUNDED = re.compile(r"\b(\w+) (?:founded|laid the first stone of) (\w+)\.")
_ASKED = re.compile(
    r"^Question: In which city did (?:(\w+)|the person) grow up(?: who founded (\w+))?\?$",
    re.MULTILINE,
)
CHANCE = 1 / len(CITIES)
"""Of a blind guess of a city."""


@dataclass(frozen=True)
class Passage:
    """A question, the documents that answer it, and its answers.

    Args:
        where: Origin, for the report.
        question: What is asked.
        documents: The golden ones.
        answers: Each one is right.
    """

    where: str
    question: str
    documents: tuple[str, ...]
    answers: tuple[str, ...]


def made_up(hops: int, count: int, rng: random.Random) -> tuple[Passage, list[str]]:
    """A question of one or two hops, and ``count`` documents of the same forms about others.

    Args:
        hops: 1: where somebody grew up; 2: where the founder of a town did.
        count: How many other documents.
        rng: Draws them.
    """
    cities, names = rng.sample(CITIES, min(len(CITIES), count + 1)), set[str]()

    def name() -> str:
        while (drawn := made_up_name(rng, held_out=True)) in names:
            pass
        names.add(drawn)
        return drawn

    def person(who: str, city: str) -> str:
        form = rng.choice(("grew up in", "spent every summer of a long childhood in"))
        middle = f"{who} {form} {city}. {who} collected every {rng.choice(NOUNS)}."
        return f"{prose(rng, 1)} {middle} {prose(rng, 1)}"

    def town(which: str, founder: str) -> str:
        form = rng.choice(("founded", "laid the first stone of"))
        return f"{prose(rng, 1)} {founder} {form} {which}. {prose(rng, 1)}"

    who, city = name(), cities[0]
    documents, question = [person(who, city)], f"In which city did {who} grow up?"
    if hops == 2:
        which = name()
        question = f"In which city did the person grow up who founded {which}?"
        documents.append(town(which, who))
    others = [
        town(name(), name()) if hops == 2 and at % 2 else person(name(), cities[1 + at % 50])
        for at in range(count)
    ]
    return Passage("made up", question, tuple(documents), (city,)), others


def passages(rows: Iterable[Row], suite: Suite) -> Iterator[Passage]:
    """The question of each row in SQuAD's layout; those without an answer are left out.

    Raises:
        CasesError: A row cannot be used; names it and the field.
    """
    for where, row in rows:
        for field in ("question", "context"):
            if not isinstance(row.get(field), str) or not row[field].strip():
                raise CasesError(f"{where}: field {field!r} is {row.get(field)!r}; give a text")
        given = row.get("answers")
        texts = given.get("text") if isinstance(given, Mapping) else given
        if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
            raise CasesError(
                f"{where}: field 'answers' is {given!r}; SQuAD's rows have {{'text': [...]}} there"
            )
        if not texts:
            suite.leave_out(where, "a question without an answer")
            continue
        if empty := [one for one in texts if not one.strip()]:
            raise CasesError(f"{where}: field 'answers' has an empty text: {empty[0]!r}")
        answers = tuple(dict.fromkeys(one.strip() for one in texts))
        yield Passage(where, row["question"].strip(), (row["context"].strip(),), answers)


def gathered(
    golden: Sequence[str], others: Sequence[str], size: int, rng: random.Random
) -> str | None:
    """Numbered documents of at most ``size`` characters in any order, the golden ones among them.

    Returns:
        The text; None if the golden ones alone are longer.
    """
    chosen, length = list(golden), sum(len(one) + 16 for one in golden)
    if length > size:
        return None
    for other in others:
        if length + len(other) + 16 <= size and other not in chosen:
            chosen.append(other)
            length += len(other) + 16
    rng.shuffle(chosen)
    return "\n\n".join(f"Document {number}:\n{text}" for number, text in enumerate(chosen, 1))


def read_task(prompt: Prompt) -> tuple[Fact, list[Fact]]:
    """The answer to a made-up question, and what the documents say of others: the solver.

    Raises:
        CasesError: Nothing is asked that the documents answer.
    """
    text = prompt_text(prompt)
    asked = list(_ASKED.finditer(text))
    if not asked:
        raise CasesError("the prompt holds no question about made-up documents")
    grew = dict(_GREW.findall(text))
    who, town = asked[-1].groups()
    if town:
        who = next((founder for founder, its in _FOUNDED.findall(text) if its == town), None)
    if who not in grew:
        raise CasesError(f"the documents do not say where {who or f'the founder of {town}'} was")
    others = [Fact("city", name, city) for name, city in grew.items() if name != who]
    return Fact("city", who, grew[who]), others


def why_missed(prompt: Prompt, completion: Completion) -> str:
    """How an answer to a made-up question failed; nothing if it is right.

    Raises:
        CasesError: The prompt cannot be read.
    """
    fact, others = read_task(prompt)
    is_cut = completion.finish_reason == "length"
    said = explain(completion.text, fact, others, cut_off=is_cut)
    return "" if said.startswith("correct:") else said


def why_not_said(answers: Sequence[str], completion: Completion) -> str:
    """The same where any of some texts is right, as in SQuAD: it must be said and not denied."""
    text = re.sub(r"\s+", " ", completion.text)
    if any(affirms(text, form) for answer in answers for form in _forms(answer)):
        return ""
    if completion.finish_reason == "length":
        return "cut_off: max_new_tokens ran out before the answer was complete"
    if not text.strip():
        return "no_answer: the answer is empty"
    return f"no_value: it does not say {answers[0]!r}"


def _forms(answer: str) -> list[str]:
    """An answer as it is, and without article and marks at its ends."""
    whole = re.sub(r"\s+", " ", plain(answer)).strip()
    bare = re.sub(r"^(?:the|an?) ", "", whole, flags=re.IGNORECASE).strip(" .,;:!?\"'()[]")
    return [form for form in (whole, bare) if form]


def contains(answers: Sequence[str], text: str) -> bool:
    """RULER's ``string_match_part``: any of the answers occurs, in upper or lower case."""
    return any(answer.lower() in text.lower() for answer in answers)
