"""What a workload takes at least, and what one core can do: how far from the limit a run is."""

import statistics
import time
from itertools import pairwise

import torch

from pytest_llmprobe.engine.planning import common_prefix


def seconds_of(function, repeats=7):
    """Median CPU seconds of a call."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def operations_per_second():
    """Of a product of two large matrices in float32."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return 2 * 1024**3 / seconds_of(lambda: a @ b)


def bytes_per_second():
    """Read from memory larger than the caches."""
    much = torch.randn(64 * 2**20)
    return 4 * much.numel() / seconds_of(much.sum)


def least_operations(model, prompts, answers):
    """Floating-point operations for each distinct token of prompts and each said token, once.

    Args:
        model: A Llama.
        prompts: Token ids.
        answers: Token ids.
    """
    config = model.config
    embedded = model.get_input_embeddings().weight.numel()
    tied = config.tie_word_embeddings
    weights = sum(p.numel() for p in model.parameters()) - embedded * (1 if tied else 2)
    width = config.num_hidden_layers * config.hidden_size
    total = 0
    for before, prompt, answer in with_previous(prompts, answers):
        length, start = len(prompt) + len(answer), common_prefix(before, prompt)
        total += 2 * weights * (length - 1 - start)
        total += 2 * embedded * len(answer)
        total += 4 * width * (length**2 - start**2) / 2  # scores and weighted values, causal
    return total


def least_bytes(model, prompts, answers, rows):
    """Bytes read: all weights in each step of ``rows`` rows, and each row's own keys and values."""
    config = model.config
    weights = 4 * sum(p.numel() for p in model.parameters())
    token = 8 * config.num_hidden_layers * config.hidden_size
    steps = max(map(len, answers)) * -(-len(prompts) // rows)
    total = steps * weights
    for before, prompt, answer in with_previous(prompts, answers):
        own = len(prompt) - common_prefix(before, prompt)
        total += token * sum(own + said for said in range(len(answer)))
    return total


def with_previous(prompts, answers):
    """Prompts in lexical order, each with the one before it."""
    ordered = sorted(zip(prompts, answers, strict=True))
    for (before, _), (prompt, answer) in pairwise([((), ()), *ordered]):
        yield before, prompt, answer
