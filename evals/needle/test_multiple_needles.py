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
object below. Give one value a line.

{haystack}

{n} keys:
{keys}
Corresponding values:"""

SIZES = {"smoke": needle.pairs(5), "ci": needle.pairs(5, 10, 20), "full": needle.PAPER_SIZES}
NEEDLES = {"smoke": (2,), "ci": (2, 3, 5), "full": (1, 2, 3, 4, 5, 10, 15, 20, 25)}
PLACEMENTS = ("random", "clustered")  # clustered: next to each other; asked in a random order
TRIALS = {"smoke": 2, "ci": 2, "full": 5}
ANSWER = 1024  # tokens: 25 UUIDs
UUID = 40  # tokens of one of them at most, to keep room for an answer


def multiple_needles(suite):
    profile = suite.profile
    trials = range(suite.trials or TRIALS[profile])
    grid = product(SIZES[profile], trials, NEEDLES[profile], PLACEMENTS)
    for size, trial, needles, placement in grid:
        build = partial(one_question, suite, size, trial, needles, placement)
        yield from needle.fit(size, build, suite, needles * UUID, ANSWER)


def one_question(suite, size, trial, needles, placement, n):
    if needles > n:
        return  # no room for the needles
    group = f"{size}-{trial}"  # cases of a group share their haystack, but for pairs at its end
    pairs = needle.random_pairs(n, suite.random("multiple_needles", group))
    name = f"{group}/{needles}-needles-{placement}"
    rng = suite.random("multiple_needles", name)
    asked = [pairs[place] for place in needle.positions(n, needles, placement, rng)]
    keys = needle.render_keys([key for key, _ in asked])
    yield Case(
        id=name,
        prompt=PROMPT.format(haystack=needle.render(pairs), n=needles, keys=keys),
        target="\n".join(value for _, value in asked),
        chance=1 / perm(n, needles),
        metadata={
            "task": "multiple_needles",
            "needles": needles,
            "placement": placement,
            "trial": trial,
        },
    )


def summarise(records):
    recall = score_curve(records, "needles", "recall")
    return needle.summary(records, "needles") | {"item_recall": recall}


@pytest.mark.probe(cases=multiple_needles, summary=summarise, max_new_tokens=ANSWER)
def test_multiple_needles(case, completion, score):
    verdict = needle.judge(case, completion, score)
    assert verdict.correct, verdict.explanation
