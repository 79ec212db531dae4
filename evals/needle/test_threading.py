"""Threading: follow values that are keys themselves, give the value at the end.  Chance 1/N.

Needle Threading, arXiv 2411.05000.  Example with 2 hops:
{"3f2a...": "9b81...", ..., "9b81...": "c07d..."}  Key: "3f2a..." -> c07d...

    pytest evals/needle/test_threading.py --model=mistral -n 2
"""

from itertools import product

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments import needle

pytestmark = [pytest.mark.needle, pytest.mark.threading]

PROMPT = """The values of the JSON object below can be keys of other pairs. Starting from the \
specified key, look up its value; as long as the value is itself a key, look that up in turn. \
Give only the final value, which is not a key.

{haystack}

Key: "{key}"
Final value:"""

SIZES = {"smoke": (5,), "ci": (5, 10, 20), "full": (25, 50, 100, 200, 400)}  # pairs
HOPS = {"smoke": (2,), "ci": (2, 3, 4), "full": (*range(2, 11), 15, 20, 25)}  # pairs of the thread
DIRECTIONS = ("forward", "backward", "random")
TRIALS = {"smoke": 2, "ci": 2, "full": 5}


def threads(suite):
    trials = range(suite.trials or TRIALS[suite.profile])
    grid = product(SIZES[suite.profile], HOPS[suite.profile], DIRECTIONS, trials)
    for size, hops, direction, trial in grid:
        if hops > size:
            continue  # no room for the thread
        name = f"{size}-pairs-{hops}-hops-{direction}-{trial}"
        thread = needle.thread(size, hops, direction, suite.random("threading", name))
        yield Case(
            id=name,
            prompt=PROMPT.format(haystack=needle.render(thread.pairs), key=thread.start),
            target=thread.target,
            chance=1 / size,
            metadata={
                "task": "threading",
                "size": size,
                "hops": hops,
                "direction": direction,
                "trial": trial,
            },
        )


@pytest.mark.probe(cases=threads, max_new_tokens=64)
@pytest.mark.gate(pass_rate=0.75)
def test_threading(case, completion, score):
    answer = needle.parse_answer(completion)
    score("lenient", answer.first == case.target)
    assert answer.only == case.target, answer.explain(case)
