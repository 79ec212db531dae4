"""Sampling whose randomness belongs to the row: its seed and step, and nothing else.

transformers draws all rows of a batch from one global stream, so a row's answer would depend on
its neighbours. Here Gumbel noise, a hash of (row seed, step, token id), is added to the processed
scores and the largest is taken, which samples exactly from their softmax (Gumbel 1954; "Gumbel-max
trick"). The whole chain is ours because processors that are passed to ``generate`` run before its
own temperature and top-k.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from pytest_llmprobe.generation import GenerateConfig

# SplitMix64 (Steele, Lea, Flood 2014) in wrapping signed 64-bit arithmetic.
_GAMMA = -0x61C8864680B583EB
_MULTIPLIER_1 = -0x40A7B892E31B1A47
_MULTIPLIER_2 = -0x6B2FB644ECCEEE15


def sampled(
    scores: torch.Tensor, config: GenerateConfig, seeds: Sequence[int], steps: Sequence[int]
) -> torch.Tensor:
    """Scores whose largest is the sampled token: temperature, top-k, top-p, min-p, then noise.

    Args:
        scores: Logits (N, V) in fp32.
        config: The same for all rows; with temperature 0 the scores stay as they are.
        seeds: One 63-bit seed for each of the N rows.
        steps: For each row which token of its answer this is, from 1 up.
    """
    if config.temperature == 0:
        return scores
    # The processors look at scores only, so any ids will do.
    ids = torch.zeros(scores.shape[0], 1, dtype=torch.long, device=scores.device)
    for processor in _processors(config):
        scores = processor(ids, scores)
    as_tensor = partial(torch.tensor, dtype=torch.int64, device=scores.device)
    return scores + gumbel(
        as_tensor([s & (2**63 - 1) for s in seeds]), as_tensor(list(steps)), scores.shape[-1]
    )


def _processors(config: GenerateConfig) -> LogitsProcessorList:
    chain = LogitsProcessorList()
    if config.temperature != 1:
        chain.append(TemperatureLogitsWarper(config.temperature))
    if config.top_k:
        chain.append(TopKLogitsWarper(config.top_k))
    if config.top_p < 1:
        chain.append(TopPLogitsWarper(config.top_p))
    if config.min_p > 0:
        chain.append(MinPLogitsWarper(config.min_p))
    return chain


class RowSampler(LogitsProcessor):
    """For ``generate`` with do_sample=False: makes each row's largest score its sampled token.

    Args:
        config: How to sample.
        seeds: One seed per row.
    """

    def __init__(self, config: GenerateConfig, seeds: Sequence[int]) -> None:
        self._config, self._seeds = config, seeds
        self._step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V) to scores (B, V)."""
        self._step += 1
        steps = [self._step] * len(self._seeds)
        return sampled(scores.float(), self._config, self._seeds, steps)


def gumbel(seeds: torch.Tensor, steps: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Standard Gumbel noise (N, vocabulary) in fp32 from seeds and steps, both (N,) int64."""
    tokens = torch.arange(vocabulary, device=seeds.device) * _GAMMA
    rows = _mix(seeds + steps * _GAMMA)
    bits = _shift_right(_mix(_mix(rows[:, None] ^ tokens)), 40)
    uniform = (bits.to(torch.float32) + 0.5) * 2**-24
    return -torch.log(-torch.log(uniform))


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift: >> on int64 copies the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shift_right(x, 30)) * _MULTIPLIER_1
    x = (x ^ _shift_right(x, 27)) * _MULTIPLIER_2
    return x ^ _shift_right(x, 31)
