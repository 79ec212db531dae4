"""How many times faster than plain ``generate``, one prompt at a time, with equal tokens.

    pytest tests/benchmarks -n 0 -s

CPU seconds of one thread, interleaved repeats, medians; greedy, fp32, 40 new tokens. The random
model's weights are made sharp so that its close calls are as rare as a trained model's.
"""

import random
import time
from statistics import median

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from pytest_llmprobe import Engine, GenerateConfig, LoadedModel, Request, load_model
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.engine.transformers_backend import TransformersBackend
from pytest_llmprobe.models.capabilities import measure
from pytest_llmprobe.models.registry import ModelSpec

CONFIG = GenerateConfig(max_new_tokens=40)
REPEATS = 3


def reference():
    return load_model("reference")


def random_5m():
    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        vocab_size=4096,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    model.lm_head.weight.data.mul_(20)
    model.generation_config = GenerationConfig(eos_token_id=[2], pad_token_id=0)
    tokenizer = reference().tokenizer
    spec = ModelSpec("random 5M", "made from a config")
    return LoadedModel(spec, model, tokenizer, measure(model, tokenizer, 0), (), 0, {})


def shared_haystack(rng):
    """2 haystacks of 1,500 tokens with 20 questions of 53 to 66 tokens each."""
    for _ in range(2):
        haystack = tokens(rng, 1500)
        for _ in range(20):
            yield haystack + tokens(rng, rng.randint(53, 66))


def independent(rng):
    """48 prompts of 50 to 800 tokens."""
    for _ in range(48):
        yield tokens(rng, rng.randint(50, 800))


def tokens(rng, count):
    return [rng.randrange(3, 1900) for _ in range(count)]


def seconds(backend, prompts, batch_size, drafts):
    backend.encode = lambda prompt: prompts[int(prompt)]
    requests = [Request(str(i), CONFIG, draft=draft) for i, draft in enumerate(drafts)]
    engine = Engine(backend, batch_size=batch_size)
    start = time.process_time()
    completions = engine.generate(requests)
    return time.process_time() - start, [completion.token_ids for completion in completions]


@pytest.mark.parametrize("workload", [shared_haystack, independent])
@pytest.mark.parametrize("make_model", [reference, random_5m])
def test_ratio_to_plain_generate(benchmark, capsys, make_model, workload):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, prompts = make_model(), list(workload(random.Random(1)))
    none = [None] * len(prompts)
    _, said = seconds(TransformersBackend(model), prompts, 1, none)
    times = {"plain": [], "no drafts": [], "look-up": [], "last answers": []}

    def interleaved():
        for name, backend, size, drafts in (
            ("plain", TransformersBackend(model), 1, none),
            ("no drafts", FastBackend(model, drafts=False), None, none),
            ("look-up", FastBackend(model), None, none),
            ("last answers", FastBackend(model), None, said),
        ):
            taken, answers = seconds(backend, prompts, size, drafts)
            assert answers == said
            times[name].append(taken)

    benchmark.pedantic(interleaved, rounds=REPEATS)
    torch.set_num_threads(threads)
    plain = median(times["plain"])
    ratios = {name: round(plain / median(taken), 2) for name, taken in times.items()}
    benchmark.extra_info.update(ratios, plain_s=plain)
    with capsys.disabled():
        print(f"\n{model.spec.name}, {workload.__name__}: plain {plain:.2f} s, ratios {ratios}")
