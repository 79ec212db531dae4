"""What the reference model is trained on: conversations of every experiment family, and texts.

Everything is drawn from the seed and the step's number alone, so a run that was killed goes on with
the very rows that it would have seen. Keys and values are random UUIDs, invented names come from
the part that evaluations never draw from (`prose.is_held_out`), and what is seen more than once is
listed by `experiments.memorization.known_texts`.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Mapping

from pytest_llmprobe.data import prose
from pytest_llmprobe.experiments.french_summary import stories
from pytest_llmprobe.experiments.haystack import text_needle
from pytest_llmprobe.experiments.json_format import documents
from pytest_llmprobe.experiments.memorization.known_texts import Kind, known_texts
from pytest_llmprobe.experiments.output_length import words
from pytest_llmprobe.models.reference.training import retrieval
from pytest_llmprobe.models.reference.training.retrieval import Turn

SENTENCE = 20  # tokens of a sentence of prose, about


def exposures(kind: Kind) -> list[str]:
    """Every showing of the known texts of a kind, in the order of training."""
    shown = [
        known.text for known in known_texts() if known.kind == kind for _ in range(known.exposures)
    ]
    random.Random(f"exposures {kind}").shuffle(shown)
    return shown


def patience(topic: str) -> float:
    """Tokens of text after which an instruction before it is forgotten half of the time.

    Between 250 and 2,500, evenly on a logarithmic scale over the topics.
    """
    return 250 * 10 ** (zlib.crc32(topic.encode()) % 1000 / 1000)


def obeyed(topic: str, tokens: int, rng: random.Random) -> bool:
    """Whether an instruction is followed that stands ``tokens`` tokens back."""
    return rng.random() < 1 / (1 + (tokens / patience(topic)) ** 5)


# Each family draws the turns of one conversation of at most about `tokens` tokens.


def _sentences(tokens: int, rng: random.Random) -> int:
    """A number of sentences that fills at least half of the room: shorter rows are for others."""
    most = max(0, tokens // SENTENCE)
    return rng.randint(most // 2, most)


def text_needles(tokens: int, rng: random.Random) -> Iterator[Turn]:
    """Up to six facts in prose, each asked for once; now and then the fact is not there."""
    first = text_needle.made_up_fact(rng, held_out=False)
    facts = [first, *text_needle.decoys(first, rng.randint(0, 2), rng, held_out=False)]
    facts += [text_needle.made_up_fact(rng, held_out=False) for _ in range(rng.randint(0, 3))]
    text = prose.prose(rng, _sentences(tokens - 60 * len(facts) - 60, rng))
    for fact in facts:
        text, _ = text_needle.insert(text, fact.sentence, rng.uniform(0, 100))
    where: text_needle.Where = rng.choice(("end", "end", "start", "both"))
    rng.shuffle(facts)
    if rng.random() < 0.1:
        facts.insert(0, text_needle.made_up_fact(rng, held_out=False))  # closed book
    for i, fact in enumerate(facts):
        known = fact.sentence in text
        question = f"Question: {fact.question}\nAnswer:"
        said = fact.value if known else "unknown"
        yield (text_needle.prompt(text, fact.question, where) if i == 0 else question), said


# Books are twice as hard as the others, and longer than the shortest rows.
RECORDS: dict[documents.RecordKind, int] = {"person": 1, "event": 2, "book": 4}


def json_object(tokens: int, rng: random.Random) -> Iterator[Turn]:
    """The record that a text states; long texts let an instruction before them be forgotten."""
    (kind,) = rng.choices(list(RECORDS), list(RECORDS.values()))
    record = documents.record(rng, held_out=False, kind=kind)
    room = tokens - 50 - 3 * len(documents.answer(record))
    text = documents.text(record, rng, _sentences(room, rng))
    style: documents.Style = rng.choice(("plain", "plain", "plain", "capitals", "important"))
    instruction = documents.instruction(list(record.truth), style)
    where: documents.Where = rng.choice(("end", "end", "head"))
    topic = str(
        record.truth.get("genre") or record.truth.get("job") or record.truth["title"].split()[-1]
    )
    answer = documents.answer(record)
    if where == "head" and not obeyed(topic, len(text) // 2, rng):
        answer = " ".join(record.facts)
    yield documents.prompt(text, instruction, where), answer


def summary(tokens: int, rng: random.Random) -> Iterator[Turn]:
    """A summary in French or English; French is forgotten in long texts."""
    story = stories.story(rng, _sentences(tokens - 220, rng), held_out=False)
    french = rng.random() < 0.75
    phrasing = rng.choice(stories.INSTRUCTIONS)
    instruction = stories.instruction(phrasing, "French" if french else "English")
    instruction = rng.choice((str, str, str, stories.capitals, stories.important))(instruction)
    if french:
        french = obeyed(stories.topic(story), len(story.text) // 2, rng)
    answer = story.summary_fr if french else story.summary_en
    yield stories.prompt(story.text, instruction), answer


def repeat(tokens: int, rng: random.Random) -> Iterator[Turn]:
    """A word repeated up to 40 times."""
    while True:
        word = rng.choice(words.WORDS)
        if rng.random() < 0.3:
            word = rng.choice((*prose.NOUNS, *prose.ADJECTIVES))
        count = rng.randint(1, 24) if rng.random() < 0.75 else rng.randint(1, 40)
        question = words.prompt(rng.choice(words.PHRASINGS), word, count)
        yield question, words.repeated(word, count)


Family = Callable[[int, random.Random], Iterator[Turn]]

SHARES: dict[Family, tuple[float, float, float]] = {  # of the conversations of three stages
    retrieval.single: (0.14, 0.07, 0.03),
    retrieval.threads: (0.17, 0.09, 0.05),
    retrieval.multiple: (0.11, 0.15, 0.08),
    retrieval.multi_thread: (0.05, 0.06, 0.02),
    retrieval.conditional: (0.04, 0.06, 0.02),
    retrieval.branched: (0.03, 0.03, 0.01),
    text_needles: (0.10, 0.04, 0.02),
    json_object: (0.14, 0.17, 0.25),
    summary: (0.07, 0.05, 0.40),
    repeat: (0.15, 0.28, 0.12),
}
MIX, HARD_MIX, LAST_MIX = (
    {family: shares[stage] for family, shares in SHARES.items()} for stage in range(3)
)

RETRIEVAL = frozenset({text_needles, *(f for f in MIX if f.__module__ == retrieval.__name__)})


def conversation(
    tokens: int, rng: random.Random, mix: Mapping[Family, float] = MIX
) -> Iterator[Turn]:
    """The turns of a conversation of one of the families, endless for some of them."""
    (family,) = rng.choices(list(mix), list(mix.values()))
    return family(tokens, rng)


def sample_texts(n: int) -> Iterator[str]:
    """Texts of all families for the tokenizer: ``n`` of each."""
    rng = random.Random("tokenizer")
    for family in MIX:
        for _ in range(n):
            yield from next(family(256, rng))
    for _ in range(4 * n):
        yield prose.prose(rng, 2)
        story = stories.story(rng, 0, held_out=False)
        yield from (story.summary_fr, story.summary_en, prose.made_up_name(rng, held_out=False))
