"""What a search costs beside separate runs of plain ``generate``, with equal answers.

    pytest tests/benchmarks/test_search_speed.py -n 0 -s

20 configurations x 100 rows of the reference model's needle task, 48 new tokens at most; CPU
seconds of one thread. ``generate`` has the same samplers and seeds, one prompt at a time or 16 in a
batch; so have separate runs of this engine.
"""

import time

import pytest
import torch

from pytest_llmprobe import Case, Engine, Request, load_model
from pytest_llmprobe.engine.transformers_backend import TransformersBackend
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.search import SearchTask
from pytest_llmprobe.suite import Suite, seed_of

PROMPT = "Extract the value of the key in the JSON object.\n\n{haystack}\n\nKey: {key}\nValue:"
SPACE = [
    {"temperature": 0.0, "repetition_penalty": [1.0, 1.1]},
    {"temperature": [0.2, 0.4, 0.6, 0.8, 1.0, 1.2]},
    {"temperature": [0.7, 1.0], "top_p": [0.8, 0.9]},
    {"temperature": [0.7, 1.0], "top_k": [20]},
    {"temperature": [0.7, 1.0], "min_p": [0.1]},
    {"temperature": 1.0, "typical_p": [0.5]},
    {"temperature": 1.0, "tfs": [0.9]},
    {"temperature": 1.0, "top_a": [0.2]},
    {"temperature": 0.7, "generation_seed": 1},
]


def rows(haystacks, questions):
    """Questions about haystacks of 10 pairs, about 400 tokens each."""
    suite = Suite()
    for number in range(haystacks):
        pairs = needle.random_pairs(10, suite.random("search speed", number))
        for key, value in pairs[:questions]:
            prompt = PROMPT.format(haystack=needle.render(pairs), key=key)
            yield Case(f"{number}/{key}", prompt, value)


def right(some, answers):
    return [row["target"] in answer for row, answer in zip(some, answers, strict=True)]


@pytest.mark.parametrize(("haystacks", "questions"), [(100, 1), (20, 5)])
def test_ratio_to_separate_runs(benchmark, capsys, haystacks, questions):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = load_model("reference")
    data = list(rows(haystacks, questions))
    taken = {}

    def clocked(name, work):
        start = time.process_time()
        found = work()
        taken[name] = time.process_time() - start
        return found

    def searched():
        task = SearchTask(Engine(model), data, score=right, max_new_tokens=48)
        return task, task.answers(task.configurations(SPACE), task.rows)

    def separately(engine):
        return [
            engine.generate(
                [Request(r["prompt"], one.config, seed_of(one.seed, r["id"])) for r in task.rows]
            )
            for one in task.configurations(SPACE)
        ]

    task, ours = benchmark.pedantic(clocked, ("search", searched), rounds=1)
    assert (len(ours), len(ours[0])) == (20, 100)
    own = clocked("this engine", lambda: separately(Engine(model)))
    plain = TransformersBackend(model)
    alone = clocked("one by one", lambda: separately(Engine(plain, batch_size=1)))
    batched = clocked("in batches of 16", lambda: separately(Engine(plain, batch_size=16)))
    torch.set_num_threads(threads)
    runs = (ours, own, alone, batched)
    texts = [[[a.text for a in answers] for answers in run] for run in runs]
    assert texts[0] == texts[1] == texts[2]
    equal = sum(a == b for x, y in zip(*texts[2:], strict=True) for a, b in zip(x, y, strict=True))
    ratios = {name: round(taken["search"] / seconds, 3) for name, seconds in taken.items()}
    benchmark.extra_info.update(ratios, search_s=taken["search"])
    with capsys.disabled():
        print(
            f"\n{haystacks} haystacks x {questions}: search {taken['search']:.1f} s, as a part of "
            f"{ratios}; {equal} of 2000 batched answers equal those one by one"
        )
