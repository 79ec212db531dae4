"""Multi-threading: follow m threads at once, give the values at their ends.  Chance (N-m)!/N!.

Needle Threading, arXiv 2411.05000.  Example with 2 threads of 2 hops:
{"3f2a...": "9b81...", "77e0...": "a4d8...", "9b81...": "c07d...", "a4d8...": "d1c3..."}
2 keys: "77e0..." "3f2a..." -> d1c3... c07d...

    pytest evals/needle/test_multi_threading.py --model=mistral -n 2
"""

from itertools import product
from math import perm

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments import needle

pytestmark = [pytest.mark.needle, pytest.mark.multi_threading]

PROMPT = """The values of the JSON object below can be keys of other pairs. Starting from each of \
the specified keys, look up its value; as long as the value is itself a key, look that up in turn. \
Give only the final values, which are not keys, in the order of the keys, one a line.

{haystack}

{n} keys:
{keys}
Final values:"""

SIZES = {"smoke": (5,), "ci": (10, 20), "full": (25, 50, 100, 200, 400)}  # pairs
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
        if hops * m > size:
            continue  # no room for the threads
        name = f"{size}-pairs-{m}-threads-{hops}-hops-{direction}-{trial}"
        rng = suite.random("multi_threading", name)
        threads = needle.multi_threads(size, hops, m, direction, rng)
        haystack = needle.render(threads[0].pairs)
        keys = needle.render_keys([thread.start for thread in threads])
        yield Case(
            id=name,
            prompt=PROMPT.format(haystack=haystack, n=m, keys=keys),
            target="\n".join(thread.target for thread in threads),
            chance=1 / perm(size, m),
            metadata={
                "task": "multi_threading",
                "size": size,
                "hops": hops,
                "threads": m,
                "direction": direction,
                "trial": trial,
            },
        )


@pytest.mark.probe(cases=multi_threads, max_new_tokens=1024)  # 25 UUIDs of 40 tokens
@pytest.mark.gate(pass_rate=0.75)
def test_multi_threading(case, completion, score):
    answer, targets = needle.parse_answer(completion), case.target.split("\n")
    for name, value in needle.list_scores(answer.distinct, targets).items():
        score(name, value)
    assert answer.distinct == targets, answer.explain(case)
