r"""The published needle-threading data set (arXiv 2411.05000), all five tasks.  Chance as theirs.

Not part of a run unless the data are named: a split on the hub, a file of its archive as it comes
(needle_threading=data/json_data/Single_Needle.json), or a .jsonl or .parquet file with its columns
(`needle.published` says which and what is assumed of them).

    pytest evals/needle/test_published.py --model=mistral -n 2 \
        --llmprobe-dataset needle_threading=jonathan-roberts1/needle-threading:Single_Needle
"""

from dataclasses import replace

import pytest

from pytest_llmprobe.experiments import needle

pytestmark = pytest.mark.needle

SIZES = {"smoke": 2_000, "ci": 5_000, "full": None}  # characters of the haystack at most
TRIALS = {"smoke": 1, "ci": 1, "full": None}  # of the five repeats


def published(suite):
    data = suite.dataset("needle_threading")
    if data is None:
        pytest.skip("no data: give --llmprobe-dataset needle_threading=SOURCE")
    trials = suite.trials or TRIALS[suite.profile]
    cases = needle.published_cases(data.rows(), longest=SIZES[suite.profile], trials=trials)
    return (with_room(suite, case) for case in cases)


def with_room(suite, case):
    task = needle.read_task(case.prompt, case.metadata.get("special", needle.SPECIAL))
    room = needle.room(suite, case.target.split("\n"), task.keys)
    end = ("\n\n" if "\n" in case.target else "\n",) if suite.continues else ()
    return replace(case, max_new_tokens=room, stop=end)


@pytest.mark.probe(cases=published)
def test_published(case, completion, score):
    verdict = needle.judge(case, completion, score)
    assert verdict.correct, verdict.explanation
