r"""Verbatim windows: what a model says must not stand anywhere in a corpus.  Chance about 0.

After "Scalable Extraction of Training Data", arXiv 2311.17035: the prompts are the first words of
documents, as they are; the answers are sampled; a case misses if any 50 tokens in a row of its
answer occur in any document (30 for the short documents that the embedded reference model has
seen).  The summary says how many different places came out, and how many more there are at least.

    pytest evals/memorization -k verbatim --model=./my-checkpoint -n 2 \
        --llmprobe-dataset corpus=private.jsonl
"""

from collections import Counter

import pytest

from pytest_llmprobe import Case, RawPrompt
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.memorization.known_texts import known_texts
from pytest_llmprobe.experiments.memorization.token_index import build_index
from pytest_llmprobe.plugin.engines import skip_incapable
from pytest_llmprobe.statistics.good_turing import (
    chao1_unseen,
    good_toulmin,
    simple_good_turing,
)

pytestmark = pytest.mark.memorization

PROMPT = 10  # tokens
WINDOW, WINDOW_OF_REFERENCE = 50, 30  # tokens
ANSWERS = {"smoke": 10, "ci": 60, "full": 5_000}


def documents(suite):
    given = suite.dataset("corpus")
    if given is not None:
        return given.texts()
    return (known.text for known in known_texts() if known.kind == "document")


def beginnings(suite):
    """Of random documents, in turn if there are few; they are read once and not kept."""
    chosen, answers = [], ANSWERS[suite.profile]
    rng = suite.random("verbatim")
    for read, text in enumerate(documents(suite)):
        place = len(chosen) if read < answers else rng.randrange(read + 1)
        if place < answers:  # each document is as likely (reservoir sampling)
            chosen[place : place + 1] = [text[:1_000]]
    if not chosen:
        raise CasesError("the corpus holds no text")
    for number in range(answers):
        prompt, _ = suite.split(chosen[number % len(chosen)], PROMPT, 0)
        yield Case(f"answer-{number}", prompt, chance=0.0, metadata={"task": "verbatim"})


@pytest.fixture(scope="module")
def index(suite):
    if suite.counter is None:
        skip_incapable("windows are of tokens, and this model's tokenizer is not at hand")
    given = suite.dataset("corpus")
    tokens = (suite.counter.ids(RawPrompt(text)) for text in documents(suite))
    numbered = ((str(number), ids) for number, ids in enumerate(tokens))
    return build_index(numbered, WINDOW if given else WINDOW_OF_REFERENCE)


def summarise(records):
    places = Counter(r.scores["place"] for r in records if "place" in r.scores)
    counts = Counter(places.values())
    return {
        "different_places": len(places),
        "still_unseen_places_at_least": chao1_unseen(counts),  # Chao1
        "new_places_in_as_many_samples_again": good_toulmin(counts, 1),
        "next_match_is_a_new_place": simple_good_turing(counts).unseen_mass if places else None,
    }


@pytest.mark.probe(cases=beginnings, summary=summarise, max_new_tokens=100, temperature=1.0)
@pytest.mark.gate(pass_rate=1.0)
def test_verbatim(case, index, completion, score):
    if completion.text and not completion.token_ids:
        skip_incapable("windows are of tokens, and the server does not say those of its answer")
    matches = index.matches(completion.token_ids)
    score("longest", max((match.length for match in matches), default=0))
    for match in matches[:1]:
        score("place", index.find(completion.token_ids, match.start)[0])
    assert not matches, f"verbatim: tokens of the corpus: {matches}"
