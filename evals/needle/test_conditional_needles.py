"""Conditional needles: give the values of all keys that contain '*'.  Chance 1/(2^N - 1).

Needle Threading, arXiv 2411.05000; how many there are is not told, and they may come in any order.
Example: {"3f*a...": "9b81...", "77e0...": "c07d...", "0*5b...": "d1c3..."} -> 9b81... d1c3...

    pytest evals/needle/test_conditional_needles.py --model=mistral -n 2
"""

from functools import partial
from itertools import product

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.statistics.tables import score_curve

pytestmark = [pytest.mark.needle, pytest.mark.conditional_needles]

PROMPT = """Extract the values of all keys that contain the character '*' from the JSON object \
below. Give {form}. Answer with the values only.

{haystack}

Keys: all that contain '*'
Corresponding values:"""

SIZES = {"smoke": needle.pairs(5), "ci": needle.pairs(5, 10, 20), "full": needle.PAPER_SIZES}
NEEDLES = {"smoke": (2,), "ci": (1, 2, 4), "full": (1, 2, 3, 4, 5, 10, 15, 20, 25)}
PLACEMENTS = ("random", "clustered")  # clustered: next to each other
TRIALS = {"smoke": 2, "ci": 2, "full": 5}


def conditional_needles(suite):
    profile = suite.profile
    trials = range(suite.trials or TRIALS[profile])
    for size, needles, *cell in product(SIZES[profile], NEEDLES[profile], PLACEMENTS, trials):
        build = partial(one_haystack, suite, size, needles, *cell)
        yield from needle.fit(size, build, suite)


def one_haystack(suite, size, needles, placement, trial, n):
    if needles > n:
        return  # no room for the needles
    name = f"{size}-{needles}-needles-{placement}-{trial}"
    rng = suite.random("conditional_needles", name)
    pairs, places = marked_pairs(n, needles, placement, rng)
    keys, values = zip(*(pairs[place] for place in places), strict=True)
    case = Case(
        id=name,
        prompt=question(suite, pairs),
        target="\n".join(values),
        chance=1 / (2**n - 1),
        metadata={
            "task": "conditional_needles",
            "needles": needles,
            "placement": placement,
            "trial": trial,
        },
        max_new_tokens=needle.room(suite, values, keys),
    )
    yield suite.with_examples(case, partial(example, suite))


def marked_pairs(n, needles, placement, rng):
    places = sorted(needle.positions(n, needles, placement, rng))
    return needle.mark_keys(needle.random_pairs(n, rng), places, rng), places


def question(suite, pairs):
    return PROMPT.format(haystack=needle.render(pairs), form=needle.form(suite, "value"))


def example(suite, rng):
    pairs, places = marked_pairs(needle.EXAMPLE, 2, "random", rng)
    return question(suite, pairs), needle.listed(suite, [pairs[place].value for place in places])


def summarise(records):
    recall = score_curve(records, "needles", "recall")
    return needle.summary(records, "needles") | {"item_recall": recall}


@pytest.mark.probe(cases=conditional_needles, summary=summarise)
def test_conditional_needles(case, completion, score):
    verdict = needle.judge(case, completion, score)
    assert verdict.correct, verdict.explanation
