"""How fast this model is on this machine: prefill, decoding, memory.  Only where it is asked for:

    pytest evals/speed --model=mistral --benchmark-save=before
    pytest evals/speed --model=mistral --benchmark-compare --benchmark-compare-fail=median:10%

pytest-benchmark times, saves and compares whole rounds; the report has the medians as scores, which
`--llmprobe-save` keeps and `--llmprobe-compare` holds to limits on the same machine:

    [tool.llmprobe.gates.mistral.decode]
    score = {decode_tokens_per_s = {max_drop = "10%"}}

A batch is so many prompts at once, without a common beginning; behind a server so many requests, of
which --llmprobe-concurrency are under way.  Nothing is kept, looked up or guessed.  A model in this
process says all its tokens, whatever they are; a server tells its first token with
--llmprobe-stream.  Every answer that comes passes.
"""

import os
from statistics import median

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments.speed.prompts import text_of

pytest.importorskip("pytest_benchmark", reason="speed needs the extra speed: pytest-benchmark")

pytestmark = [
    pytest.mark.speed,
    pytest.mark.skipif(
        "PYTEST_XDIST_WORKER" in os.environ, reason="speed is measured by one process: -n 0"
    ),
]

SIZES = {"smoke": (64,), "ci": (128, 512, 2_048), "full": (128, 512, 2_048, 8_192)}  # tokens
BATCHES = {"smoke": (1, 2), "ci": (1, 8), "full": (1, 8, 32)}
NEW = {"smoke": 8, "ci": 64, "full": 128}  # tokens
ROUNDS = {"smoke": 2, "ci": 3, "full": 5}


def batches(suite):
    for size in SIZES[suite.profile]:
        if suite.context_length and size + NEW[suite.profile] > suite.context_length:
            suite.leave_out(f"{size} tokens", "they do not fit the model's context")
            continue
        for rows in BATCHES[suite.profile]:
            prompt = text_of(suite, size, "shown")
            known = {"size": size, "batch": rows}
            yield Case(f"{size}-tokens-x{rows}", prompt, metadata=known)


@pytest.fixture
def rounds(case, suite, engine, benchmark):
    """Measures so many tokens after the case's prompts; each round has prompts of its own."""
    from pytest_llmprobe.engine.speed import timed  # torch

    measured, size, rows = [], case.metadata["size"], case.metadata["batch"]

    def prompts(number):
        return [text_of(suite, size, number, row) for row in range(rows)]

    def rounds(new_tokens):
        count = ROUNDS[suite.profile]
        asked = iter([prompts(number) for number in range(count + 1)])
        benchmark.group = f"{size} tokens, batch of {rows}, {new_tokens} new"
        benchmark.pedantic(
            lambda given: measured.append(timed(engine, given, new_tokens)),
            setup=lambda: ((next(asked),), {}),
            rounds=count,
            warmup_rounds=1,
        )
        return measured[-count:]

    return rounds


@pytest.fixture
def tell(score, benchmark):
    """Scores the median of a measure over the rounds, if it is known."""

    def tell(name, values):
        if None not in values:
            score(name, median(values))
            benchmark.extra_info[name] = median(values)

    return tell


def memory(rounds):
    return [None if r.memory is None else r.memory / 2**20 for r in rounds]


@pytest.mark.probe(cases=batches)
def test_prefill(case, rounds, tell):
    found = rounds(1)
    tell("first_token_s", [r.first_token_s for r in found])
    tell("prefill_tokens_per_s", [r.prefill_tokens_per_s for r in found])
    tell("peak_memory_mib", memory(found))


@pytest.mark.probe(cases=batches)
def test_decode(case, rounds, suite, tell):
    found = rounds(NEW[suite.profile])
    tell("answer_s", [r.seconds for r in found])
    tell("decode_tokens_per_s", [r.decode_tokens_per_s for r in found])
    tell("peak_memory_mib", memory(found))
