"""What steering costs beside the same generation without it, and the memory of Influence.

    pytest tests/benchmarks/test_steering_speed.py -n 0 -s

CPU seconds of one thread, interleaved repeats, medians. Delta is so small that the answers are the
same. The span is an instruction at the head of 20 stories, or of one story with 20 questions: then
the rows share their prefix, steered or not.
"""

import random
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import pytest
import torch
from test_engine_speed import random_5m

from pytest_llmprobe import Engine, GenerateConfig, Request, Steer, load_model
from pytest_llmprobe.experiments.french_summary import stories
from pytest_llmprobe.whitebox.influence import influence_maps

CONFIG = GenerateConfig(max_new_tokens=40)
REPEATS, SMALL = 5, 1e-6
INSTRUCTION = stories.instruction(stories.INSTRUCTIONS[0], "French")
STORIES = {"stories of 250 tokens": 10, "stories of 1,100 tokens": 70}


def separate(sentences):
    rng = random.Random(0)
    for _ in range(20):
        yield stories.prompt(stories.story(rng, sentences).text, INSTRUCTION)


def shared():
    text = stories.story(random.Random(0), 70).text
    return (f"{INSTRUCTION}\n\n{text}\n\nQuestion {n}: who is it?" for n in range(20))


@pytest.mark.parametrize("workload", [*STORIES, "20 questions about one story"])
@pytest.mark.parametrize("batch_size", [None, 1])
def test_steering(workload, batch_size):
    torch.set_num_threads(1)
    engine = Engine(load_model("reference"), batch_size=batch_size, drafts=False)
    prompts = list(separate(STORIES[workload]) if workload in STORIES else shared())
    steers = (None, Steer(INSTRUCTION, SMALL))
    times, answers = ([], []), [None, None]
    for _ in range(REPEATS + 1):  # the first to warm up
        for number, steer in enumerate(steers):
            requests = [Request(prompt, CONFIG, steer=steer) for prompt in prompts]
            start = time.process_time()
            completions = engine.generate(requests)
            times[number].append(time.process_time() - start)
            answers[number] = [completion.token_ids for completion in completions]
    assert answers[0] == answers[1]
    plain, steered = (median(seconds[1:]) for seconds in times)
    how = "one by one (generate)" if batch_size else "in batches"
    print(f"\n{workload}, {how}: {plain:.2f} s, steered {steered:.2f} s: {steered / plain:.2f}")


def extra_memory(tokens, traced):
    """MiB that a forward pass, or the Influence of a span, takes for a while beside the model."""
    model, rng = random_5m(), random.Random(0)
    ids = tuple(rng.choices(range(3, 1900), k=tokens))
    with torch.inference_mode():
        model.model(torch.tensor([ids[:64]]), use_cache=False)
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak so far is forgotten
        before = memory("VmRSS")
        if traced:
            maps = influence_maps(model, ids, [range(5, 25)])
            assert maps["influence"].shape == (1, 5, tokens)
        else:
            model.model.model(torch.tensor([ids]), use_cache=False)
    return memory("VmHWM") - before


def memory(name):
    """A figure of this process in MiB (Linux)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0]) / 1024


def test_memory_of_influence():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as process:
        plain = process.submit(extra_memory, 4096, False).result()
        traced = process.submit(extra_memory, 4096, True).result()
    print(f"\nInfluence at 4,096 tokens: {traced:,.0f} MiB, a forward pass {plain:,.0f} MiB")
