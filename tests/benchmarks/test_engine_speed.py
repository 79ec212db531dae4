"""How many times faster than plain ``generate``, one prompt at a time, with equal tokens.

    pytest tests/benchmarks/test_engine_speed.py -n 0 -s

CPU seconds of one thread, interleaved repeats, medians; greedy, fp32, 40 new tokens at most. With
lm-evaluation-harness installed (``pip install lm_eval``) its ``HFLM.generate_until`` runs beside,
at the better of two batch sizes. The last line of each workload is the share of the machine's
limit: the operations and the bytes that it takes at least, over what a matrix product and a sum
reach.
"""

import random
import time
from statistics import median

import pytest
import torch
from limits import bytes_per_second, least_bytes, least_operations, operations_per_second
from workloads import independent, random_5m, random_82m, reference, rounded, shared_haystack

from pytest_llmprobe import Engine, GenerateConfig, Request
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.engine.transformers_backend import TransformersBackend

CONFIG = GenerateConfig(max_new_tokens=40)
REPEATS = {reference: 3, random_5m: 3, random_82m: 1}
HARNESS_BATCHES = (1, 8)
SIZES = {
    "shared": {reference: 2, random_5m: 2, random_82m: 1},
    "independent": {reference: 48, random_5m: 48, random_82m: 12},
}


def timed(function):
    start = time.process_time()
    found = function()
    return time.process_time() - start, found


def ours(backend, prompts, batch_size=None, drafts=None):
    drafts = drafts or [None] * len(prompts)
    requests = [Request(p, CONFIG, draft=d) for p, d in zip(prompts, drafts, strict=True)]
    engine = Engine(backend, batch_size=batch_size)
    return timed(lambda: [c.token_ids for c in engine.generate(requests)])


def harness(model, prompts, batch_size):
    """lm-evaluation-harness on the same token ids: its seconds and its texts."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    tokenizer = model.tokenizer
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        for prompt in prompts
    ]
    tokenizer.pad_token_id = model.pad_id
    lm = HFLM(model.model, tokenizer=tokenizer, batch_size=batch_size, add_bos_token=False)
    asked = {"until": [], "max_gen_toks": CONFIG.max_new_tokens, "do_sample": False}
    instances = [
        Instance("generate_until", {}, (text, dict(asked)), n) for n, text in enumerate(texts)
    ]
    return timed(lambda: lm.generate_until(instances, disable_tqdm=True))


def best_harness(model, prompts, said):
    """The batch size that is fastest, and the share of its texts that are plain generate's."""
    taken = {}
    for size in HARNESS_BATCHES:
        taken[size], texts = harness(model, prompts, size)
        plain = [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in said]
        equal = sum(a.strip() == b.strip() for a, b in zip(texts, plain, strict=True))
        print(f"  lm_eval, batches of {size}: {taken[size]:.2f} s, {equal} of {len(said)} equal")
    return min(taken, key=taken.get)


@pytest.mark.parametrize("workload", list(SIZES))
@pytest.mark.parametrize("make_model", [reference, random_5m, random_82m])
def test_ratio_to_plain_generate(benchmark, capsys, make_model, workload):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, rng = make_model(), random.Random(1)
    make = shared_haystack if workload == "shared" else independent
    prompts = list(make(rng, SIZES[workload][make_model]))
    _, said = ours(TransformersBackend(model), prompts, 1)
    _, nearly = ours(FastBackend(rounded(model)), prompts)
    runs = {
        "plain": lambda: ours(TransformersBackend(model), prompts, 1),
        "no drafts": lambda: ours(FastBackend(model, drafts=False), prompts),
        "look-up": lambda: ours(FastBackend(model), prompts),
        "last answers": lambda: ours(FastBackend(model), prompts, None, said),
        "of rounded weights": lambda: ours(FastBackend(model), prompts, None, nearly),
    }
    with capsys.disabled():
        print(f"\n{model.spec.name}, {workload}, {len(prompts)} prompts:")
        try:
            size = best_harness(model, prompts, said)
            runs["lm_eval"] = lambda: harness(model, prompts, size)
        except ImportError:
            print("  lm_eval is not installed")
    times = {name: [] for name in runs}

    def interleaved():
        for name, run in runs.items():
            taken, answers = run()
            assert name == "lm_eval" or answers == said
            times[name].append(taken)

    benchmark.pedantic(interleaved, rounds=REPEATS[make_model])
    plain = median(times["plain"])
    ratios = {name: round(plain / median(taken), 2) for name, taken in times.items()}
    benchmark.extra_info.update(ratios, plain_s=plain)
    ids = [tuple(FastBackend(model).encode(prompt)) for prompt in prompts]
    best = median(times["no drafts"])
    operations = least_operations(model.model, ids, said) / operations_per_second()
    traffic = least_bytes(model.model, ids, said, 64) / bytes_per_second()
    torch.set_num_threads(threads)
    with capsys.disabled():
        same = sum(a == b for a, b in zip(nearly, said, strict=True))
        print(f"  plain {plain:.2f} s, ratios {ratios}; rounded weights: {same} answers the same")
        print(f"  of the limit without drafts: operations {operations / best:.0%}, ", end="")
        print(f"bytes {traffic / best:.0%}")
