"""Branched threading: keys occur several times, give the longest thread's end.  Chance 1/N.

Needle Threading, arXiv 2411.05000.  Example with 2 hops and 2 branches:
{"3f2a...": "9b81...", "3f2a...": "77e0...", ..., "9b81...": "c07d..."}  Key: "3f2a..." -> c07d...

    pytest evals/needle/test_branched_threading.py --model=mistral -n 2
"""

from functools import partial
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

SIZES = {"smoke": needle.pairs(5), "ci": needle.pairs(5, 10, 20), "full": needle.PAPER_SIZES}
HOPS = {"smoke": (2,), "ci": (2, 3), "full": (2, 3, 4, 5, 10)}  # pairs of the longest thread
BRANCHES = {"smoke": (2,), "ci": (2, 3), "full": (2, 3, 5)}  # pairs with the same key
DIRECTIONS = ("forward", "backward", "random")
TRIALS = {"smoke": 1, "ci": 1, "full": 5}


def branched_threads(suite):
    profile = suite.profile
    trials = range(suite.trials or TRIALS[profile])
    grid = product(SIZES[profile], HOPS[profile], BRANCHES[profile], DIRECTIONS, trials)
    for size, *cell in grid:
        yield from needle.fit(size, partial(one_thread, suite, size, *cell), suite)


def one_thread(suite, size, hops, branches, direction, trial, n):
    if branches * (hops - 1) + 1 > n:
        return  # no room for the branches; the last pair has none
    name = f"{size}-{hops}-hops-{branches}-branches-{direction}-{trial}"
    rng = suite.random("branched_threading", name)
    thread = needle.branched_thread(n, hops, branches, direction, rng)
    case = Case(
        id=name,
        prompt=question(thread),
        target=thread.target,
        chance=1 / n,
        metadata={
            "task": "branched_threading",
            "hops": hops,
            "branches": branches,
            "direction": direction,
            "trial": trial,
        },
        max_new_tokens=needle.room(suite, [thread.target], thread.keys),
    )
    yield suite.with_examples(case, example)


def question(thread):
    return PROMPT.format(haystack=needle.render(thread.pairs), key=thread.start)


def example(rng):
    thread = needle.branched_thread(needle.EXAMPLE, 2, 2, "random", rng)
    return question(thread), thread.target


def summarise(records):
    return needle.summary(records, "hops", "branches")


@pytest.mark.probe(cases=branched_threads, summary=summarise)
def test_branched_threading(case, completion, score):
    verdict = needle.judge(case, completion, score)
    assert verdict.correct, verdict.explanation
