"""What hidden states cost beside generating the answers that they are of, and in how much memory.

    pytest tests/benchmarks/test_hidden_states_speed.py -n 0 -s

Answers of 50 tokens of a random model, states of 5 layers of 256 numbers, written to disk; CPU
seconds of one thread. Each size has a process of its own, and so a peak of memory of its own; the
allocator takes about five chunks of requests to settle, so both sizes have more.
"""

import random
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import torch
from test_engine_speed import random_5m

from pytest_llmprobe import Engine
from pytest_llmprobe.experiments.output_length.data_set_collection import collect
from pytest_llmprobe.experiments.output_length.requests import LengthRequest
from pytest_llmprobe.whitebox.hidden_states import HiddenStateReader

TOKENS, ANSWERS = 50, 1000
ANSWERS_FOR_MEMORY = (1500, 3000)


def collected(folder, answers, invented):
    """CPU seconds of generation and of everything, peak MiB; invented answers cost nothing."""
    torch.set_num_threads(1)
    model, generation, rng = random_5m(), 0.0, random.Random(0)
    engine, reader = Engine(model), HiddenStateReader(model, layers=None)

    def generate(requests):
        nonlocal generation
        start = time.process_time()
        if invented:
            (one,) = engine.generate(requests[:1])
            completions = [
                replace(one, token_ids=tuple(rng.choices(range(3, 1900), k=TOKENS)))
                for _ in requests
            ]
        else:
            completions = engine.generate(requests)
        generation += time.process_time() - start
        return [replace(completion, finish_reason="stop") for completion in completions]

    requests = [LengthRequest(f"Tell me story number {number}.") for number in range(answers)]
    start = time.process_time()
    data = collect(folder, requests, reader, generate, max_new_tokens=TOKENS)
    total = time.process_time() - start
    assert data.train.states.shape[1] == 5 * 256
    assert len(data) == answers * TOKENS
    return generation, total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux


def in_a_process(*arguments):
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(collected, *arguments).result()


def test_ratio_to_generation(benchmark, capsys, tmp_path):
    generation, total, _ = benchmark.pedantic(
        in_a_process, args=(tmp_path, ANSWERS, False), rounds=1
    )
    ratio = round(total / generation, 2)
    benchmark.extra_info.update(ratio=ratio, generation_s=generation)
    with capsys.disabled():
        print(f"\ngeneration {generation:.1f} s, with states {total:.1f} s: {ratio} times")


def test_peak_of_memory(benchmark, capsys, tmp_path):
    def peaks():
        sizes = {n: in_a_process(tmp_path / str(n), n, True) for n in ANSWERS_FOR_MEMORY}
        return {n * TOKENS: round(peak) for n, (_, _, peak) in sizes.items()}

    found = benchmark.pedantic(peaks, rounds=1)
    benchmark.extra_info.update({f"peak_mib_{tokens}": peak for tokens, peak in found.items()})
    with capsys.disabled():
        print(f"\npeak MiB by tokens: {found}")
