"""The engine beside what else generates on a CPU, on one model: CPU seconds of one thread.

    python tests/benchmarks/peers.py [--model smollm2] [--workloads abcd] [--repeats 3] [--slow 1]

a: 20 questions on one text of 1,500 tokens; b: 8 independent texts; c: 8 needles, four to a
haystack; d: 8 stories of 200 tokens. Greedy; all are given the same token ids. ``plain`` is
transformers' ``generate`` with one prompt at a time, ``static`` the same in padded batches of 8;
both run ``--slow`` times. ``again`` has the answers of a last run as guesses. OpenVINO GenAI reads
the model's GGUF file, with and without shared prefixes, if ``openvino_genai`` can be imported; what
is absent is named. Runs take turns. Prints a markdown table of medians, how many times plain that
is, and how many answers are plain's own; then who was fastest on prompts that were new to it, and
by how much. ``--rounded`` rounds the weights to bfloat16 first, as a
checkpoint has them that was no GGUF file in between; not those that OpenVINO reads.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, NamedTuple

import torch
from workloads import HAYSTACK

from pytest_llmprobe import Engine, GenerateConfig, LoadedModel, Request, load_model
from pytest_llmprobe.data import prose
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.engine.transformers_backend import TransformersBackend
from pytest_llmprobe.experiments import needle

TOPICS = ("a lighthouse", "a lost dog", "the first snow", "a baker", "an old map")
TOPICS += ("a broken clock", "the last train", "a river that sings")
ASKED = (
    "Who",
    "Where",
    "When",
    "Why",
    "How",
    "What",
    "Which word",
    "Whose idea",
    "How many",
    "Is it",
)

Answers = list[tuple[int, ...]]


def prompts(workload: str) -> tuple[list[str], int]:
    """The prompts, and how many new tokens each may have."""
    rng = random.Random(f"peers {workload}")
    if workload == "a":
        text = prose.prose(rng, 150)
        ends = ("is it about?", "comes first in the text?")
        return [f"{text}\n\n{word} {end}" for word in ASKED for end in ends], 48
    if workload == "b":
        return [prose.prose(rng, 6 + 4 * n) + "\n\nSay this in a sentence." for n in range(8)], 48
    if workload == "c":
        return list(needles(rng)), 48
    return [f"Tell me a story about {topic} in about 200 words." for topic in TOPICS], 200


def needles(rng: random.Random) -> Iterator[str]:
    for _ in range(2):
        pairs = needle.random_pairs(24, rng)
        for key, _ in rng.sample(pairs, 4):
            yield HAYSTACK.format(needle.render(pairs), key)


def ours(backend: Any, asked: list[str], config: GenerateConfig, size: int | None) -> Callable:
    engine = Engine(backend, batch_size=size)
    return lambda drafts=None: [
        c.token_ids
        for c in engine.generate(
            [
                Request(p, config, draft=d)
                for p, d in zip(asked, drafts or [None] * 99, strict=False)
            ]
        )
    ]


def openvino(model: LoadedModel, asked: list[str], tokens: int, sharing: bool) -> Callable:
    """OpenVINO GenAI's continuous batching on the model's GGUF file, in float32, on one thread."""
    import openvino
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.enable_prefix_caching = sharing
    scheduler.cache_size = 2
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    path = str(model.spec.gguf)
    config = genai.GenerationConfig(max_new_tokens=tokens, do_sample=False)
    config.apply_chat_template = False
    config.set_eos_token_id(model.end_ids[0])
    encode = TransformersBackend(model).encode
    ids = [openvino.Tensor(torch.tensor([encode(prompt)]).numpy()) for prompt in asked]
    pipeline = None if sharing else _pipeline(path, scheduler, options)

    def run(drafts: Any = None) -> Answers:
        # A cache that is kept would know the prompts from the last run.
        fresh = pipeline or _pipeline(path, scheduler, options)
        start = time.process_time()
        found = fresh.generate(ids, [config] * len(ids))
        run.seconds = time.process_time() - start
        return [tuple(result.m_generation_ids[0]) for result in found]

    return run


def _pipeline(path: str, scheduler: Any, options: dict[str, Any]) -> Any:
    import openvino_genai as genai

    return genai.ContinuousBatchingPipeline(path, scheduler, "CPU", options)


class Measured(NamedTuple):
    """One row of the table: median of CPU seconds, and how many answers are plain's."""

    workload: str
    name: str
    seconds: float
    equal: int
    prompts: int


def measured(model: LoadedModel, workload: str, repeats: int, slow: int) -> list[Measured]:
    """The table's rows of one workload."""
    asked, tokens = prompts(workload)
    config = GenerateConfig(max_new_tokens=tokens)
    fast = FastBackend(model)
    plain = ours(TransformersBackend(model), asked, config, 1)
    static = ours(TransformersBackend(model), asked, config, 8)
    engine = ours(fast, asked, config, None)
    runs: dict[str, tuple[Callable, int]] = {
        "plain": (plain, slow),
        "static": (static, slow),
        "engine": (engine, repeats),
        "engine, again": (lambda: engine(said["engine"]), repeats),
    }
    lengths = [len(fast.encode(prompt)) for prompt in asked]
    print(
        f"\n{workload}: {len(asked)} prompts of {min(lengths)} to {max(lengths)} tokens", flush=True
    )
    for name, sharing in (("OpenVINO", False), ("OpenVINO, shared prefixes", True)):
        try:
            runs[name] = (openvino(model, asked, tokens, sharing), repeats)
        except ImportError as error:
            print(f"{name} is absent: {error}")
    said: dict[str, Answers] = {}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(max(repeats, slow)):
        for name, (run, turns) in runs.items():
            if turn < turns:
                start = time.process_time()
                said[name] = run()
                taken = time.process_time() - start
                times[name].append(getattr(run, "seconds", taken))
                print(f"  {name}: {times[name][-1]:.2f} s", flush=True)
    right = said["plain"]
    return [
        Measured(
            workload, name, median(taken), sum(map(tuple.__eq__, said[name], right)), len(right)
        )
        for name, taken in times.items()
    ]


def table(rows: list[Measured]) -> str:
    """In markdown, with the fastest of each workload below."""
    lines = ["| workload | | CPU s | x plain | answers of plain |", "|---|---|---|---|---|"]
    verdicts = []
    for workload in dict.fromkeys(row.workload for row in rows):
        some = [row for row in rows if row.workload == workload]
        of = {row.name: row.seconds for row in some}
        lines += [
            f"| {workload} | {row.name} | {row.seconds:.2f} | {of['plain'] / row.seconds:.1f} | "
            f"{row.equal} of {row.prompts} |"
            for row in some
        ]
        first, second = sorted((s, name) for name, s in of.items() if name != "engine, again")[:2]
        verdicts.append(
            f"{workload}: {first[1]} is fastest, {second[0] / first[0]:.2f} times {second[1]}; the "
            f"engine takes {of['engine'] / first[0]:.2f} times as long"
        )
    return "\n".join([*lines, "", *verdicts])


def ready(name: str, rounded: bool) -> LoadedModel:
    """The model on one thread, after it has generated until all copies of its weights are made."""
    torch.set_num_threads(1)
    model = load_model(name)
    if rounded:
        model.model.bfloat16().float()
    backend = FastBackend(model)
    print(backend.path)
    start, before = time.process_time(), backend.path
    while " to be copied " in backend.path:
        ours(backend, prompts("d")[0], GenerateConfig(max_new_tokens=50), None)()
    if backend.path != before:
        print(f"after {time.process_time() - start:.1f} s: {backend.path}")
    return model


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--workloads", default="abcd")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slow", type=int, default=1)
    parser.add_argument("--rounded", action="store_true")
    options = parser.parse_args()
    model = ready(options.model, options.rounded)
    rows: list[Measured] = []
    for workload in options.workloads:
        rows += measured(model, workload, options.repeats, options.slow)
        print(f"\n{table(rows)}", flush=True)  # a run that is cut off has said what it knows


if __name__ == "__main__":
    main()
