"""Threading: follow values that are keys themselves, give the value at the end.  Chance 1/N.

Needle Threading, arXiv 2411.05000.  Example with 2 hops:
{"3f2a...": "9b81...", ..., "9b81...": "c07d..."}  Key: "3f2a..." -> c07d...

    pytest evals/needle/test_threading.py --model=mistral -n 2
"""

from functools import partial
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

SIZES = {"smoke": needle.pairs(5), "ci": needle.pairs(5, 10, 20), "full": needle.PAPER_SIZES}
HOPS = {"smoke": (2,), "ci": (2, 3, 4), "full": (*range(2, 11), 15, 20, 25)}  # pairs of the thread
DIRECTIONS = ("forward", "backward", "random")
TRIALS = {"smoke": 2, "ci": 2, "full": 5}


def threads(suite):
    trials = range(suite.trials or TRIALS[suite.profile])
    grid = product(SIZES[suite.profile], HOPS[suite.profile], DIRECTIONS, trials)
    for size, *cell in grid:
        yield from needle.fit(size, partial(one_thread, suite, size, *cell), suite)


def one_thread(suite, size, hops, direction, trial, n):
    if hops > n:
        return  # no room for the thread
    name = f"{size}-{hops}-hops-{direction}-{trial}"
    thread = needle.thread(n, hops, direction, suite.random("threading", name))
    case = Case(
        id=name,
        prompt=question(thread),
        target=thread.target,
        chance=1 / n,
        metadata={"task": "threading", "hops": hops, "direction": direction, "trial": trial},
        max_new_tokens=needle.room(suite, [thread.target], thread.keys),
    )
    yield suite.with_examples(case, example)


def question(thread):
    return PROMPT.format(haystack=needle.render(thread.pairs), key=thread.start)


def example(rng):
    thread = needle.thread(needle.EXAMPLE, 2, "random", rng)
    return question(thread), thread.target


def summarise(records):
    return needle.summary(records, "hops", "direction")


@pytest.mark.probe(cases=threads, summary=summarise)
def test_threading(case, completion, score):
    verdict = needle.judge(case, completion, score)
    assert verdict.correct, verdict.explanation
