"""Multiple needles: give the values of n keys, in order.  Chance (N-n)!/N!.

Needle Threading, arXiv 2411.05000.  Example: {"3f2a...": "9b81...", "77e0...": "c07d...", ...}
2 keys: "77e0..." "3f2a..." -> c07d... 9b81...

    pytest evals/needle/test_multiple_needles.py --model=mistral -n 2
"""

from functools import partial
from itertools import product
from math import perm

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.statistics.tables import score_curve

pytestmark = [pytest.mark.needle, pytest.mark.multiple_needles]

PROMPT = """Extract the values of the specified keys, in the order of the keys, from the JSON \
object below. Give {form}. Answer with the values only.

{haystack}

{n} keys:
{keys}
Corresponding values:"""

SIZES = {"smoke": needle.pairs(5), "ci": needle.pairs(5, 10, 20), "full": needle.PAPER_SIZES}
NEEDLES = {"smoke": (2,), "ci": (2, 3, 5), "full": (1, 2, 3, 4, 5, 10, 15, 20, 25)}
PLACEMENTS = ("random", "clustered")  # clustered: next to each other; asked in a random order
TRIALS = {"smoke": 2, "ci": 2, "full": 5}


def multiple_needles(suite):
    profile = suite.profile
    trials = range(suite.trials or TRIALS[profile])
    grid = product(SIZES[profile], trials, NEEDLES[profile], PLACEMENTS)
    for size, trial, needles, placement in grid:
        build = partial(one_question, suite, size, trial, needles, placement)
        yield from needle.fit(size, build, suite)


def one_question(suite, size, trial, needles, placement, n):
    if needles > n:
        return  # no room for the needles
    group = f"{size}-{trial}"  # cases of a group share their haystack, but for pairs at its end
    pairs = needle.random_pairs(n, suite.random("multiple_needles", group))
    name = f"{group}/{needles}-needles-{placement}"
    rng = suite.random("multiple_needles", name)
    asked = [pairs[place] for place in needle.positions(n, needles, placement, rng)]
    keys, values = zip(*asked, strict=True)
    case = Case(
        id=name,
        prompt=question(suite, pairs, keys),
        target="\n".join(values),
        chance=1 / perm(n, needles),
        metadata={
            "task": "multiple_needles",
            "needles": needles,
            "placement": placement,
            "trial": trial,
        },
        max_new_tokens=needle.room(suite, values, keys),
    )
    yield suite.with_examples(case, partial(example, suite))


def question(suite, pairs, keys):
    haystack, listed = needle.render(pairs), needle.render_keys(keys)
    return PROMPT.format(
        haystack=haystack, n=len(keys), keys=listed, form=needle.form(suite, "value")
    )


def example(suite, rng):
    pairs = needle.random_pairs(needle.EXAMPLE, rng)
    keys, values = zip(*rng.sample(pairs, 2), strict=True)
    return question(suite, pairs, keys), needle.listed(suite, values)


def summarise(records):
    recall = score_curve(records, "needles", "recall")
    return needle.summary(records, "needles") | {"item_recall": recall}


@pytest.mark.probe(cases=multiple_needles, summary=summarise)
def test_multiple_needles(case, completion, score):
    verdict = needle.judge(case, completion, score)
    assert verdict.correct, verdict.explanation
