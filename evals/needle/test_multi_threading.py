"""Multi-threading: follow m threads at once, give the values at their ends.  Chance (N-m)!/N!.

Needle Threading, arXiv 2411.05000.  Example with 2 threads of 2 hops:
{"3f2a...": "9b81...", "77e0...": "a4d8...", "9b81...": "c07d...", "a4d8...": "d1c3..."}
2 keys: "77e0..." "3f2a..." -> d1c3... c07d...

    pytest evals/needle/test_multi_threading.py --model=mistral -n 2
"""

from functools import partial
from itertools import product
from math import perm

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.statistics.tables import curve, heat_map

pytestmark = [pytest.mark.needle, pytest.mark.multi_threading]

PROMPT = """The values of the JSON object below can be keys of other pairs. Starting from each of \
the specified keys, look up its value; as long as the value is itself a key, look that up in turn. \
Give only the final values, which are not keys, in the order of the keys, {form}.

{haystack}

{n} keys:
{keys}
Final values:"""

SIZES = {"smoke": needle.pairs(5), "ci": needle.pairs(10, 20), "full": needle.PAPER_SIZES}
THREADS = {  # (hops, threads); many threads of 3 hops show how many a model can keep apart
    "smoke": ((2, 2),),
    "ci": tuple(product((2, 3), (2, 3, 4))),
    "full": (*product((2, 3, 4, 5, 10), (2, 3, 4, 5)), *((3, m) for m in range(6, 26))),
}
DIRECTIONS = ("forward", "backward", "random")
TRIALS = {"smoke": 1, "ci": 1, "full": 5}


def multi_threads(suite):
    trials = range(suite.trials or TRIALS[suite.profile])
    grid = product(SIZES[suite.profile], THREADS[suite.profile], DIRECTIONS, trials)
    for size, (hops, m), direction, trial in grid:
        build = partial(one_haystack, suite, size, hops, m, direction, trial)
        yield from needle.fit(size, build, suite)


def one_haystack(suite, size, hops, m, direction, trial, n):
    if hops * m > n:
        return  # no room for the threads
    name = f"{size}-{m}-threads-{hops}-hops-{direction}-{trial}"
    rng = suite.random("multi_threading", name)
    threads = needle.multi_threads(n, hops, m, direction, rng)
    values = [thread.target for thread in threads]
    case = Case(
        id=name,
        prompt=question(suite, threads),
        target="\n".join(values),
        chance=1 / perm(n, m),
        metadata={
            "task": "multi_threading",
            "hops": hops,
            "threads": m,
            "direction": direction,
            "trial": trial,
        },
        max_new_tokens=needle.room(suite, values, [key for one in threads for key in one.keys]),
    )
    yield suite.with_examples(case, partial(example, suite))


def question(suite, threads):
    haystack = needle.render(threads[0].pairs)
    keys = needle.render_keys([thread.start for thread in threads])
    return PROMPT.format(haystack=haystack, n=len(threads), keys=keys, form=needle.form(suite))


def example(suite, rng):
    threads = needle.multi_threads(2 * needle.EXAMPLE, 2, 2, "random", rng)
    return question(suite, threads), needle.listed(suite, [thread.target for thread in threads])


def summarise(records):
    return needle.summary(records) | {
        "thread_safety": curve([r for r in records if r.params["hops"] == 3], "threads"),
        "hops_by_threads": heat_map(records, rows="hops", columns="threads"),
    }


@pytest.mark.probe(cases=multi_threads, summary=summarise)
def test_multi_threading(case, completion, score):
    verdict = needle.judge(case, completion, score)
    assert verdict.correct, verdict.explanation
