"""Branched threading: keys occur several times, give the longest thread's end.  Chance 1/N.

Needle Threading, arXiv 2411.05000.  Example with 2 hops and 2 branches:
{"3f2a...": "9b81...", "3f2a...": "77e0...", ..., "9b81...": "c07d..."}  Key: "3f2a..." -> c07d...

    pytest evals/needle/test_branched_threading.py --model=mistral -n 2
"""

from itertools import product

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments import needle

pytestmark = [pytest.mark.needle, pytest.mark.branched_threading]

PROMPT = """A key can occur several times in the JSON object below, and its values can be keys of \
other pairs. Starting from the specified key, look up all its values; as long as a value is itself \
a key, look that up in turn, every time it occurs. Give only the final value of the longest thread.

{haystack}

Key: "{key}"
Final value:"""

SIZES = {"smoke": (5,), "ci": (5, 10, 20), "full": (25, 50, 100, 200, 400)}  # pairs
HOPS = {"smoke": (2,), "ci": (2, 3), "full": (2, 3, 4, 5, 10)}  # pairs of the longest thread
BRANCHES = {"smoke": (2,), "ci": (2, 3), "full": (2, 3, 5)}  # pairs with the same key
DIRECTIONS = ("forward", "backward", "random")
TRIALS = {"smoke": 1, "ci": 1, "full": 5}


def branched_threads(suite):
    profile = suite.profile
    trials = range(suite.trials or TRIALS[profile])
    grid = product(SIZES[profile], HOPS[profile], BRANCHES[profile], DIRECTIONS, trials)
    for size, hops, branches, direction, trial in grid:
        if branches * (hops - 1) + 1 > size:
            continue  # no room for the branches; the last pair has none
        name = f"{size}-pairs-{hops}-hops-{branches}-branches-{direction}-{trial}"
        rng = suite.random("branched_threading", name)
        thread = needle.branched_thread(size, hops, branches, direction, rng)
        yield Case(
            id=name,
            prompt=PROMPT.format(haystack=needle.render(thread.pairs), key=thread.start),
            target=thread.target,
            chance=1 / size,
            metadata={
                "task": "branched_threading",
                "size": size,
                "hops": hops,
                "branches": branches,
                "direction": direction,
                "trial": trial,
            },
        )


@pytest.mark.probe(cases=branched_threads, max_new_tokens=64)
@pytest.mark.gate(pass_rate=0.75)
def test_branched_threading(case, completion, score):
    answer = needle.parse_answer(completion)
    score("lenient", answer.first == case.target)
    assert answer.only == case.target, answer.explain(case)
