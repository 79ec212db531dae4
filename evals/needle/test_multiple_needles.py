"""Multiple needles: give the values of n keys, in order.  Chance (N-n)!/N!.

Needle Threading, arXiv 2411.05000.  Example: {"3f2a...": "9b81...", "77e0...": "c07d...", ...}
2 keys: "77e0..." "3f2a..." -> c07d... 9b81...

    pytest evals/needle/test_multiple_needles.py --model=mistral -n 2
"""

from itertools import product
from math import perm

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments import needle

pytestmark = [pytest.mark.needle, pytest.mark.multiple_needles]

PROMPT = """Extract the values of the specified keys, in the order of the keys, from the JSON \
object below. Give one value a line.

{haystack}

{n} keys:
{keys}
Corresponding values:"""

SIZES = {"smoke": (5,), "ci": (5, 10, 20), "full": (25, 50, 100, 200, 400)}  # pairs
NEEDLES = {"smoke": (2,), "ci": (2, 3, 5), "full": (1, 2, 3, 4, 5, 10, 15, 20, 25)}
PLACEMENTS = ("random", "clustered")  # clustered: next to each other; asked in a random order
TRIALS = {"smoke": 2, "ci": 2, "full": 5}


def multiple_needles(suite):
    trials = range(suite.trials or TRIALS[suite.profile])
    for size, trial in product(SIZES[suite.profile], trials):
        group = f"{size}-pairs-{trial}"  # cases of a group share their haystack
        pairs = needle.random_pairs(size, suite.random("multiple_needles", group))
        for n, placement in product(NEEDLES[suite.profile], PLACEMENTS):
            if n > size:
                continue  # no room for the needles
            name = f"{group}/{n}-needles-{placement}"
            rng = suite.random("multiple_needles", name)
            asked = [pairs[place] for place in needle.positions(size, n, placement, rng)]
            keys = needle.render_keys([key for key, _ in asked])
            yield Case(
                id=name,
                prompt=PROMPT.format(haystack=needle.render(pairs), n=n, keys=keys),
                target="\n".join(value for _, value in asked),
                chance=1 / perm(size, n),
                metadata={
                    "task": "multiple_needles",
                    "size": size,
                    "needles": n,
                    "placement": placement,
                    "trial": trial,
                },
            )


@pytest.mark.probe(cases=multiple_needles, max_new_tokens=1024)  # 25 UUIDs of 40 tokens
@pytest.mark.gate(pass_rate=0.75)
def test_multiple_needles(case, completion, score):
    answer, targets = needle.parse_answer(completion), case.target.split("\n")
    for name, value in needle.list_scores(answer.distinct, targets).items():
        score(name, value)
    assert answer.distinct == targets, answer.explain(case)
