"""Conditional needles: give the values of all keys that contain '*'.  Chance 1/(2^N - 1).

Needle Threading, arXiv 2411.05000; how many there are is not told, and they may come in any order.
Example: {"3f*a...": "9b81...", "77e0...": "c07d...", "0*5b...": "d1c3..."} -> 9b81... d1c3...

    pytest evals/needle/test_conditional_needles.py --model=mistral -n 2
"""

from itertools import product

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments import needle

pytestmark = [pytest.mark.needle, pytest.mark.conditional_needles]

PROMPT = """Extract the values of all keys that contain the character '*' from the JSON object \
below. Give one value a line.

{haystack}

Keys: all that contain '*'
Corresponding values:"""

SIZES = {"smoke": (5,), "ci": (5, 10, 20), "full": (25, 50, 100, 200, 400)}  # pairs
NEEDLES = {"smoke": (2,), "ci": (1, 2, 4), "full": (1, 2, 3, 4, 5, 10, 15, 20, 25)}
PLACEMENTS = ("random", "clustered")  # clustered: next to each other
TRIALS = {"smoke": 2, "ci": 2, "full": 5}


def conditional_needles(suite):
    trials = range(suite.trials or TRIALS[suite.profile])
    for size, n, placement, trial in product(
        SIZES[suite.profile], NEEDLES[suite.profile], PLACEMENTS, trials
    ):
        if n > size:
            continue  # no room for the needles
        name = f"{size}-pairs-{n}-needles-{placement}-{trial}"
        rng = suite.random("conditional_needles", name)
        places = sorted(needle.positions(size, n, placement, rng))
        pairs = needle.mark_keys(needle.random_pairs(size, rng), places, rng)
        yield Case(
            id=name,
            prompt=PROMPT.format(haystack=needle.render(pairs)),
            target="\n".join(pairs[place].value for place in places),
            chance=1 / (2**size - 1),
            metadata={
                "task": "conditional_needles",
                "size": size,
                "needles": n,
                "placement": placement,
                "trial": trial,
            },
        )


@pytest.mark.probe(cases=conditional_needles, max_new_tokens=1024)  # 25 UUIDs of 40 tokens
@pytest.mark.gate(pass_rate=0.75)
def test_conditional_needles(case, completion, score):
    answer, targets = needle.parse_answer(completion), case.target.split("\n")
    for name, value in needle.list_scores(answer.distinct, targets, ordered=False).items():
        score(name, value)
    assert set(answer.distinct) == set(targets), answer.explain(case)
