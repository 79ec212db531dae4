"""The questions that the reference model's card is measured with: fresh ones for each cell."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from pytest_llmprobe.data import prose
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.experiments.french_summary import stories
from pytest_llmprobe.experiments.french_summary.language import language
from pytest_llmprobe.experiments.haystack import text_needle
from pytest_llmprobe.experiments.json_format import documents, scoring
from pytest_llmprobe.experiments.output_length import words
from pytest_llmprobe.models.reference.training import retrieval

SEED = "evaluation"
Score = Callable[[str], float]
"""How well an answer's text does, from 0 to 1."""


@dataclass(frozen=True)
class Question:
    """A user's message and how well an answer to it does."""

    prompt: str
    score: Score


@dataclass(frozen=True)
class Cell:
    """A row of the table: what is asked, how hard, and what draws a question."""

    family: str
    cell: str
    max_new_tokens: int
    draw: Callable[[random.Random], Question]

    def questions(self, n: int) -> list[Question]:
        """The first ``n`` questions of the cell: always the same ones."""
        rng = random.Random(f"{SEED} {self.family} {self.cell}")
        return [self.draw(rng) for _ in range(n)]


def cells() -> Iterator[Cell]:
    """All rows of the table."""
    for n in (5, 10, 20, 40, 60, 80, 100):
        yield Cell("single needle", f"{n} pairs", 24, partial(_single, n))
    for hops in (2, 3, 4, 5):
        yield Cell("thread in 20 pairs", f"{hops} hops", 24, partial(_thread, 20, hops))
    for m in (2, 3, 5):
        yield Cell("several needles in 20, recall", f"{m} keys", 110, partial(_multiple, 20, m))
    for m in (2, 3):
        draw = partial(_multi_thread, 20, m)
        yield Cell("threads of 2 hops in 20, recall", f"{m} keys", 110, draw)
    for m in (1, 2):
        yield Cell("conditional in 10, recall", f"{m} keys", 110, partial(_conditional, 10, m))
    yield Cell("branched thread in 10", "2 hops", 24, partial(_branched, 10, 2))
    for depth in (0, 25, 50, 75, 100):
        yield Cell("fact in 1,000 tokens of prose", f"depth {depth} %", 12, partial(_fact, depth))
    yield Cell("closed book: must be 0", "numbers", 12, partial(_fact, None))
    kinds: tuple[documents.RecordKind, ...] = ("person", "event", "book")
    for kind in kinds:
        yield Cell("JSON, strict and valid", kind, 250, partial(_json, kind, "passed"))
        yield Cell("JSON, fields right", kind, 250, partial(_json, kind, "field_accuracy"))
    for n in (0, 5, 10, 25, 50, 75, 100):
        yield Cell("summary in French", f"{20 * n + 80} tokens", 120, partial(_summary, n))
    for n in (1, 5, 10, 15, 20, 30, 40, 50):
        yield Cell("word repeated", f"{n} times", 4 * n + 40, partial(_repeated, n))


def _prompt(form: tuple[str, str], pairs: Sequence[needle.Pair], keys: Sequence[str]) -> str:
    introduction, question = form
    key = keys[0] if keys else ""
    asked = question.format(key=key, n=len(keys), keys=needle.render_keys(keys))
    return introduction.format(haystack=needle.render(pairs)) + "\n\n" + asked


def _exactly(target: str) -> Score:
    return lambda answer: float(needle.UUID.findall(answer) == [target])


def _recall(targets: Sequence[str]) -> Score:
    return lambda answer: len({*targets} & {*needle.UUID.findall(answer)}) / len(targets)


def _single(n: int, rng: random.Random) -> Question:
    pairs = needle.random_pairs(n, rng)
    key, value = rng.choice(pairs)
    return Question(_prompt(retrieval.SINGLE, pairs, [key]), _exactly(value))


def _thread(n: int, hops: int, rng: random.Random) -> Question:
    thread = needle.thread(n, hops, rng.choice(retrieval.DIRECTIONS), rng)
    prompt = _prompt(retrieval.THREAD, thread.pairs, [thread.start])
    return Question(prompt, _exactly(thread.target))


def _multiple(n: int, several: int, rng: random.Random) -> Question:
    pairs = needle.random_pairs(n, rng)
    asked = [pairs[i] for i in needle.positions(n, several, "random", rng)]
    prompt = _prompt(retrieval.MULTIPLE, pairs, [pair.key for pair in asked])
    return Question(prompt, _recall([pair.value for pair in asked]))


def _multi_thread(n: int, several: int, rng: random.Random) -> Question:
    threads = needle.multi_threads(n, 2, several, "random", rng)
    keys = [thread.start for thread in threads]
    prompt = _prompt(retrieval.MULTI_THREAD, threads[0].pairs, keys)
    return Question(prompt, _recall([thread.target for thread in threads]))


def _conditional(n: int, marked: int, rng: random.Random) -> Question:
    places = sorted(needle.positions(n, marked, "random", rng))
    pairs = needle.mark_keys(needle.random_pairs(n, rng), places, rng)
    prompt = _prompt(retrieval.CONDITIONAL, pairs, [])
    return Question(prompt, _recall([pairs[place].value for place in places]))


def _branched(n: int, hops: int, rng: random.Random) -> Question:
    thread = needle.branched_thread(n, hops, 2, "random", rng)
    prompt = _prompt(retrieval.BRANCHED, thread.pairs, [thread.start])
    return Question(prompt, _exactly(thread.target))


def _fact(depth: float | None, rng: random.Random) -> Question:
    fact = text_needle.made_up_fact(rng, kind="number" if depth is None else None)
    text = prose.prose(rng, 48)
    if depth is not None:
        text, _ = text_needle.insert(text, fact.sentence, depth)
    prompt = text_needle.prompt(text, fact.question)
    return Question(prompt, lambda answer: float(text_needle.passed(answer, fact)))


def _json(kind: documents.RecordKind, measure: str, rng: random.Random) -> Question:
    record = documents.record(rng, kind=kind)
    text = documents.text(record, rng, 10)
    prompt = documents.prompt(text, documents.instruction(list(record.truth)))
    schema = documents.schema(kind)

    def score(answer: str) -> float:
        return float(getattr(scoring.score(answer, schema, record.truth), measure) or 0)

    return Question(prompt, score)


def _summary(sentences: int, rng: random.Random) -> Question:
    story = stories.story(rng, sentences)
    phrasing = rng.choice(stories.INSTRUCTIONS)
    prompt = stories.prompt(story.text, stories.instruction(phrasing, "French"))
    return Question(prompt, lambda answer: float(language(answer) == "fr"))


def _repeated(count: int, rng: random.Random) -> Question:
    word = rng.choice(words.WORDS)
    prompt = words.prompt(rng.choice(words.PHRASINGS), word, count)
    return Question(prompt, lambda answer: float(words.counted(answer, word) == count))
