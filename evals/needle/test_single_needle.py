"""Single needle: give the value of one key among N UUID pairs.  Chance 1/N.

Needle Threading, arXiv 2411.05000.  Example: {"3f2a...": "9b81...", ...}  Key: "3f2a..." -> 9b81...

    pytest evals/needle/test_single_needle.py --model=mistral -n 2
"""

from functools import partial
from itertools import product

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.statistics.tables import heat_map

pytestmark = pytest.mark.needle

PROMPT = """Extract the value corresponding to the specified key in the JSON object below. \
Answer with the value only.

{haystack}

Key: "{key}"
Corresponding value:"""

SIZES = {
    "smoke": needle.pairs(5, 20),
    "ci": needle.pairs(5, 10, 20, 40),
    "full": needle.PAPER_SIZES,
}
DEPTHS = {"smoke": (0, 50, 100), "ci": (0, 25, 50, 75, 100), "full": range(0, 101, 10)}  # per cent
TRIALS = {"smoke": 1, "ci": 5, "full": 5}


def single_needles(suite):
    trials = range(suite.trials or TRIALS[suite.profile])
    for size, trial in product(SIZES[suite.profile], trials):
        yield from needle.fit(size, partial(one_haystack, suite, size, trial), suite)


def one_haystack(suite, size, trial, n):
    group = f"{size}-{trial}"  # cases of a group share their haystack
    pairs = needle.random_pairs(n, suite.random("single_needle", group))
    for depth in DEPTHS[suite.profile]:
        key, value = pairs[needle.position(depth, n)]
        case = Case(
            id=f"{group}/depth-{depth}",
            prompt=PROMPT.format(haystack=needle.render(pairs), key=key),
            target=value,
            chance=1 / n,
            metadata={"task": "single_needle", "depth": depth, "trial": trial},
            max_new_tokens=needle.room(suite, [value], [key]),
        )
        yield suite.with_examples(case, example)


def example(rng):
    pairs = needle.random_pairs(needle.EXAMPLE, rng)
    key, value = rng.choice(pairs)
    return PROMPT.format(haystack=needle.render(pairs), key=key), value


def summarise(records):
    heat = heat_map(records, rows="depth", columns="size")
    return needle.summary(records) | {"heat_map": heat}


@pytest.mark.probe(cases=single_needles, summary=summarise)
def test_single_needle(case, completion, score):
    verdict = needle.judge(case, completion, score)
    assert verdict.correct, verdict.explanation
