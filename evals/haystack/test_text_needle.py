"""A needle in prose: give the value that one sentence of a long text states.  Chance 1e-7 to 1/50.

After the GUIDE paper, arXiv 2409.19001, experiment 2.  Example: "... In Rome, Ida sold the lamp.
The magic number of Velmora is 482913. ..."  What is the magic number of Velmora? -> 482913

Two controls: with other needles of the same shape in the text, none of them may be returned; and
without the needle, which is made up for each case, nobody can know its value.

    pytest evals/haystack --model=mistral -n 2 [--llmprobe-dataset haystack=texts/]
"""

from functools import partial
from itertools import product

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments.haystack import text_needle
from pytest_llmprobe.statistics.tables import curve, effective_context, heat_map

pytestmark = pytest.mark.haystack

INTRODUCTION = "Read the text below and answer the question with the value alone.\n\n"
PROMPTS = {  # by the place of the question; the reference model was trained on these very words
    "end": INTRODUCTION + "{text}\n\nQuestion: {question}\nAnswer:",
    "start": INTRODUCTION + "Question: {question}\n\n{text}\n\nAnswer:",
    "both": INTRODUCTION + "Question: {question}\n\n{text}\n\nQuestion: {question}\nAnswer:",
}

SIZES = {  # characters of the text at most, about 4 a token; full: the paper's and beyond
    "smoke": (500,),
    "ci": (500, 1_500, 3_500),
    "full": (*range(2_000, 18_001, 2_000), 50_000, 100_000, 200_000),
}
DEPTHS = {"smoke": (0, 50, 100), "ci": (0, 25, 50, 75, 100), "full": range(0, 101, 10)}  # per cent
DECOYS = 2
BESIDE = 500  # tokens at most: question, fact, decoys, a solved example and answer
EXAMPLE = 200  # characters of its text
TRIALS = {"smoke": 1, "ci": 1, "full": 5}


def texts(suite):
    """Size, trial, text and its origin: generated prose, or pieces of the user's texts."""
    sizes, trials = SIZES[suite.profile], range(suite.trials or TRIALS[suite.profile])
    if (data := suite.dataset("haystack")) is None:
        for size, trial in product(sizes, trials):
            rng = suite.random("haystack", size, trial)
            yield size, trial, text_needle.generated(size, rng), "generated"
        return
    sample = data.sample(characters=4 * max(sizes))
    prose = "\n\n".join(sample.texts)
    for size in (size for size in sizes if size > len(prose)):
        suite.leave_out(f"{size:,} characters", f"the texts have {len(prose):,}")
    # If all sizes are left out, the first one is an error that says so.
    sizes = [size for size in sizes if size <= len(prose)] or sizes[:1]
    for size, trial in product(sizes, trials):
        rng = suite.random("haystack", size, trial)
        yield size, trial, text_needle.excerpt(prose, size, rng), sample.origin


def fits(suite, size, text):
    """Whether the model's context has room for a text; the report says what is left out."""
    limit = suite.context_length
    if limit is None or size + BESIDE <= limit or suite.tokens(text) + BESIDE <= limit:
        return True
    suite.leave_out(f"{size:,} characters", f"the model's context is {limit:,} tokens")
    return False


def questions(suite, task, places, depths, decoys=0):
    """Needles at the depths, asked for at the places; None for a depth leaves the needle out."""
    for size, trial, text, origin in texts(suite):
        if not fits(suite, size, text):
            continue
        for where, depth in product(places, depths):
            rng = suite.random(task, size, trial, depth)  # the same needle for every place
            fact = text_needle.made_up_fact(rng)
            guess = text_needle.CHANCE[fact.kind]
            full, reached = text, None
            for decoy in text_needle.decoys(fact, decoys, rng):
                full, _ = text_needle.insert(full, decoy.sentence, rng.uniform(0, 100))
            if depth is not None:
                full, reached = text_needle.insert(full, fact.sentence, depth)
            case = Case(
                id=f"{size}-characters-{where}-{trial}/{task if depth is None else depth}",
                prompt=PROMPTS[where].format(text=full, question=fact.question),
                target=fact.value,
                chance=guess if depth is not None else 1 - guess,
                metadata={
                    "task": task,
                    "size": size,
                    "trial": trial,
                    "depth": depth,
                    "depth_reached": reached and round(reached, 1),
                    "question": where,
                    "kind": fact.kind,
                    "source": origin,
                },
                max_new_tokens=suite.room(fact.sentence),
            )
            yield suite.with_examples(case, partial(example, where, fact))


def example(where, asked, rng):
    """A question about another fact, so that its answer is none to what is asked."""
    fact = asked
    while fact.name == asked.name or fact.value == asked.value:
        fact = text_needle.made_up_fact(rng)
    text, _ = text_needle.insert(text_needle.generated(EXAMPLE, rng), fact.sentence, 50)
    return PROMPTS[where].format(text=text, question=fact.question), fact.value


def text_needles(suite):
    return questions(suite, "text_needle", PROMPTS, DEPTHS[suite.profile])


def text_decoys(suite):
    return questions(suite, "text_decoys", ["end"], DEPTHS[suite.profile], DECOYS)


def closed_books(suite):
    return questions(suite, "closed_book", PROMPTS, [None])


def summarise(records):
    return {
        "effective_context_characters": effective_context(records),
        "heat_map": heat_map(records, rows="depth", columns="size"),
        "by_place_of_the_question": curve(records, "question"),
    }


@pytest.mark.probe(cases=text_needles, summary=summarise)
def test_text_needle(case, completion):
    problem = text_needle.why_missed(case, completion)
    assert not problem, problem


@pytest.mark.probe(cases=text_decoys, summary=summarise)
def test_text_decoys(case, completion):
    problem = text_needle.why_missed(case, completion)
    assert not problem, problem


@pytest.mark.probe(cases=closed_books)
@pytest.mark.gate(pass_rate=0.95, rule="significant")  # a blind guess of a city is right 1 in 53
def test_closed_book(case, completion):
    said = text_needle.says(completion.text, case.target)
    assert not said, f"known: it says {case.target}, which its prompt does not"
