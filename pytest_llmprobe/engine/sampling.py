"""Sampling whose randomness belongs to the row: its seed and step, and nothing else.

transformers draws all rows of a batch from one global stream, so a row's answer would depend on
its neighbours. Here Gumbel noise, a hash of (row seed, step, token id), is added to the processed
scores and the largest is taken, which samples exactly from their softmax (Gumbel 1954; "Gumbel-max
trick"). The whole chain is ours because processors that are passed to ``generate`` run before its
own temperature and top-k.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def sampling_chain(config: GenerateConfig, seeds: Sequence[int]) -> LogitsProcessorList:
    """Temperature, top-k, top-p, min-p, then the rows' noise; empty for greedy decoding."""
    chain = LogitsProcessorList()
    if config.temperature == 0:
        return chain
    if config.temperature != 1:
        chain.append(TemperatureLogitsWarper(config.temperature))
    if config.top_k:
        chain.append(TopKLogitsWarper(config.top_k))
    if config.top_p < 1:
        chain.append(TopPLogitsWarper(config.top_p))
    if config.min_p > 0:
        chain.append(MinPLogitsWarper(config.min_p))
    chain.append(RowGumbel(seeds))
    return chain


class RowGumbel(LogitsProcessor):
    """Adds to row b's scores noise that depends on (seeds[b], step, token id).

    Args:
        seeds: One 63-bit seed per row.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._seeds = torch.tensor([seed & (2**63 - 1) for seed in seeds], dtype=torch.int64)
        self._step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V) plus Gumbel noise (B, V)."""
        self._step += 1
        noise = gumbel(self._seeds.to(scores.device), self._step, scores.shape[-1])
        return scores + noise.to(scores.dtype)


def gumbel(seeds: torch.Tensor, step: int, vocabulary: int) -> torch.Tensor:
    """Standard Gumbel noise (B, vocabulary) in fp32 from seeds (B,) int64 and a step."""
    tokens = torch.arange(vocabulary, device=seeds.device) * _GAMMA
    rows = _mix(seeds + torch.tensor(step, device=seeds.device) * _GAMMA)
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
