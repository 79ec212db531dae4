"""Single needle: give the value of one key among N UUID pairs.  Chance 1/N.

Needle Threading, arXiv 2411.05000.  Example: {"3f2a...": "9b81...", ...}  Key: "3f2a..." -> 9b81...

    pytest evals/needle/test_single_needle.py --model=mistral -n 2
"""

from itertools import product

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments import needle

pytestmark = pytest.mark.needle

PROMPT = """Extract the value corresponding to the specified key in the JSON object below.

{haystack}

Key: "{key}"
Corresponding value:"""

SIZES = {"smoke": (5, 20), "ci": (5, 10, 20, 40), "full": (25, 50, 100, 200, 400)}  # pairs
DEPTHS = {"smoke": (0, 50, 100), "ci": (0, 25, 50, 75, 100), "full": range(0, 101, 10)}  # per cent
TRIALS = {"smoke": 1, "ci": 5, "full": 5}


def single_needles(suite):
    trials = range(suite.trials or TRIALS[suite.profile])
    for size, trial in product(SIZES[suite.profile], trials):
        group = f"{size}-pairs-{trial}"  # cases of a group share their haystack
        pairs = needle.random_pairs(size, suite.random("single_needle", group))
        for depth in DEPTHS[suite.profile]:
            key, value = pairs[needle.position(depth, size)]
            yield Case(
                id=f"{group}/depth-{depth}",
                prompt=PROMPT.format(haystack=needle.render(pairs), key=key),
                target=value,
                chance=1 / size,
                metadata={"task": "single_needle", "size": size, "depth": depth, "trial": trial},
            )


@pytest.mark.probe(cases=single_needles, max_new_tokens=64)
@pytest.mark.gate(pass_rate=0.90)
def test_single_needle(case, completion, score):
    answer = needle.parse_answer(completion)
    score("lenient", answer.first == case.target)
    assert answer.only == case.target, answer.explain(case)
