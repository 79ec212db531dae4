"""Sampling whose randomness belongs to the row: its seed and step, and nothing else.

transformers draws all rows of a batch from one global stream, so a row's answer would depend on
its neighbours. Here Gumbel noise, a hash of (row seed, step, token id), is added to the processed
scores and the largest is taken, which samples exactly from their softmax (Gumbel 1954; "Gumbel-max
trick"). The whole chain is ours because processors that are passed to ``generate`` run before its
own temperature and top-k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from transformers import (
    EncoderRepetitionPenaltyLogitsProcessor,
    EpsilonLogitsWarper,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from pytest_llmprobe.engine.filters import Eta, TailFree, TopA
from pytest_llmprobe.generation import GenerateConfig

CLOSE_CALL = 1e-3
"""A lead of the best score under this could turn with the batch; such a row is redone alone."""

FILTERS: dict[str, Callable[[Any], LogitsProcessor]] = {
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "min_p": MinPLogitsWarper,
    "typical_p": TypicalLogitsWarper,
    "epsilon_cutoff": EpsilonLogitsWarper,
    "eta_cutoff": Eta,
    "tfs": TailFree,
    "top_a": TopA,
}
"""By setting, in the order in which they drop tokens."""

BLOCK = 512
"""Scores of which the largest is found first."""

# SplitMix64 (Steele, Lea, Flood 2014) in wrapping signed 64-bit arithmetic.
_GAMMA = -0x61C8864680B583EB
_MULTIPLIER_1 = -0x40A7B892E31B1A47
_MULTIPLIER_2 = -0x6B2FB644ECCEEE15


def sampled(
    scores: torch.Tensor,
    configs: Sequence[GenerateConfig],
    seeds: Sequence[int],
    steps: Sequence[int],
    histories: Sequence[Sequence[int]],
    prompts: Sequence[Sequence[int]] | None = None,
) -> torch.Tensor:
    """Scores whose largest is the chosen token: penalties, temperature, filters, then noise.

    Each row is what it is alone.

    Args:
        scores: Logits (N, V) in fp32.
        configs: For each of the N rows; where all have temperature 0 and no penalty the scores
            stay as they are.
        seeds: 63 bits for each row.
        steps: For each row which token of its answer this is, from 1 up.
        histories: For each row the tokens of its prompt and answer so far; asked for by
            ``has_penalties`` only.
        prompts: For each row the tokens of its prompt, which a penalty may count apart.
    """
    prompts = [()] * len(configs) if prompts is None else prompts
    places: dict[GenerateConfig, list[int]] = {}
    for place, config in enumerate(configs):
        places.setdefault(config, []).append(place)
    if len(places) == 1:
        scores = _filtered(scores, configs[0], histories, prompts)
        return scores + _noise(scores, seeds, steps) if configs[0].temperature > 0 else scores
    scores = scores.clone()
    for config, some in places.items():
        if config.temperature > 0 or has_penalties(config):
            at = torch.tensor(some, device=scores.device)
            its = ([of[place] for place in some] for of in (histories, prompts))
            scores[at] = _filtered(scores[at], config, *its)
    drawn = [place for place, config in enumerate(configs) if config.temperature > 0]
    at = torch.tensor(drawn, dtype=torch.long, device=scores.device)
    scores[at] += _noise(scores[at], [seeds[i] for i in drawn], [steps[i] for i in drawn])
    return scores


class Best(NamedTuple):
    """The largest of each row's scores (N,): its number, itself and the next one below."""

    token: torch.Tensor
    score: torch.Tensor
    second: torch.Tensor


def best_of(scores: torch.Tensor) -> Best:
    """Of scores (N, V); the first of equals, as in plain ``generate``.

    By the largest of each block of scores: a largest one is found ten times as fast as its place.
    """
    size = scores.shape[-1]
    whole = size // BLOCK * BLOCK
    most = scores[:, :whole].unflatten(1, (whole // BLOCK, BLOCK)).amax(-1)
    if whole < size:
        most = torch.cat([most, scores[:, whole:].amax(-1, keepdim=True)], dim=-1)
    block = most.argmax(-1, keepdim=True)
    at = block * BLOCK + torch.arange(min(BLOCK, size), device=scores.device)
    within = scores.gather(1, at.clamp(max=size - 1)).masked_fill_(at >= size, -torch.inf)
    place = within.argmax(-1, keepdim=True)
    near = within.scatter(1, place, -torch.inf).amax(-1)
    far = most.scatter(1, block, -torch.inf).amax(-1)
    token = at.gather(1, place)[:, 0]
    return Best(token, most.gather(1, block)[:, 0], torch.maximum(near, far))


def leads(
    logits: torch.Tensor,
    scores: torch.Tensor,
    best: Best,
    configs: Sequence[GenerateConfig],
    seeds: Sequence[int],
    steps: Sequence[int],
) -> torch.Tensor:
    """By how much the logits would have to change for another token to be chosen (N,).

    A temperature below 1 stretches the lead of the best score. And where a filter drops a token
    that is hardly below the last one it keeps, the two could change places: that counts if the one
    is the chosen token, or the other would have been. ``scores`` is what ``sampled`` made of the
    logits (N, V) with the same arguments, ``best`` the best of them.
    """
    stretch = [min(1.0, config.temperature or 1.0) for config in configs]
    found = (best.score - best.second) * torch.tensor(stretch, device=scores.device)
    drops = [
        place for place, config in enumerate(configs) if config.temperature and _filters(config)
    ]
    if not drops:
        return found
    at = torch.tensor(drops, device=scores.device)
    raw, dropped, chosen = logits[at], scores[at].isneginf(), best.token[at, None]
    last = raw.masked_fill(dropped, torch.inf).amin(-1, keepdim=True)
    below = (last - raw).abs().masked_fill_(~dropped, torch.inf)
    for row in (below.amin(-1) < CLOSE_CALL).nonzero().flatten().tolist():
        place, near = drops[row], below[row] < CLOSE_CALL
        heat = configs[place].temperature
        noisy = raw[row] / heat + _noise(raw[row : row + 1], [seeds[place]], [steps[place]])[0]
        kept = raw[row, chosen[row, 0]] - last[row, 0] < CLOSE_CALL
        if kept or noisy[near].max() >= noisy[chosen[row, 0]] - CLOSE_CALL:
            found[place] = torch.minimum(found[place], below[row].min())
    return found


def _filtered(
    scores: torch.Tensor,
    config: GenerateConfig,
    histories: Sequence[Sequence[int]],
    prompts: Sequence[Sequence[int]],
) -> torch.Tensor:
    """Penalties, temperature and filters."""
    if has_penalties(config):
        rows = zip(scores.split(1), histories, prompts, strict=True)
        scores = torch.cat([_penalized(*row, config) for row in rows])
    if config.temperature == 0:
        return scores
    # The filters look at scores only, so any ids will do.
    ids = torch.zeros(scores.shape[0], 1, dtype=torch.long, device=scores.device)
    if config.temperature != 1:
        scores = TemperatureLogitsWarper(float(config.temperature))(ids, scores)
    for processor in _filters(config):
        scores = processor(ids, scores)
    return scores


def _noise(scores: torch.Tensor, seeds: Sequence[int], steps: Sequence[int]) -> torch.Tensor:
    as_tensor = partial(torch.tensor, dtype=torch.int64, device=scores.device)
    return gumbel(
        as_tensor([s & (2**63 - 1) for s in seeds]), as_tensor(list(steps)), scores.shape[-1]
    )


def has_penalties(config: GenerateConfig) -> bool:
    """Whether scores depend on the tokens before."""
    repeats = config.repetition_penalty != 1 or config.no_repeat_ngram_size > 0
    return repeats or config.encoder_repetition_penalty != 1


def _penalized(
    scores: torch.Tensor, history: Sequence[int], prompt: Sequence[int], config: GenerateConfig
) -> torch.Tensor:
    """One row (1, V) alone: in a padded batch the processors would count the padding too."""
    ids: Any = torch.tensor([list(history)], device=scores.device)
    penalized: torch.Tensor = penalties(config, prompt, scores.device)(ids, scores)
    return penalized


def penalties(
    config: GenerateConfig, prompt: Sequence[int], device: torch.device
) -> LogitsProcessorList:
    """What lowers or raises scores by the tokens before, for one row."""
    found = LogitsProcessorList()
    if config.encoder_repetition_penalty != 1:
        asked: Any = torch.tensor([list(prompt)], device=device)
        preferred = float(config.encoder_repetition_penalty)
        found.append(EncoderRepetitionPenaltyLogitsProcessor(preferred, asked))
    if config.repetition_penalty != 1:
        found.append(RepetitionPenaltyLogitsProcessor(float(config.repetition_penalty)))
    if config.no_repeat_ngram_size:
        found.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    return found


@lru_cache(maxsize=1024)
def _filters(config: GenerateConfig) -> LogitsProcessorList:
    """What drops tokens; none of it has a state."""
    off = GenerateConfig()
    return LogitsProcessorList(
        kind(getattr(config, name))
        for name, kind in FILTERS.items()
        if getattr(config, name) != getattr(off, name)
    )


class RowSampler(LogitsProcessor):
    """For ``generate`` with do_sample=False: makes each row's largest score its chosen token.

    Prompts of these ``lengths`` are padded on the left; behind an encoder these are not those of
    the ``prompts``, which it has read.

    Attributes:
        broken: Whether a row's best score was not finite once (B,).
    """

    def __init__(
        self,
        config: GenerateConfig,
        seeds: Sequence[int],
        lengths: Sequence[int],
        prompts: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._config, self._seeds, self._lengths = config, seeds, lengths
        self._prompts = prompts
        self._step = 0
        self.broken = torch.zeros(len(seeds), dtype=torch.bool)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V) to scores (B, V)."""
        self.broken = self.broken.to(scores.device) | ~scores.amax(dim=-1).isfinite()
        histories: list[list[int]] = []
        if has_penalties(self._config):
            histories = [
                ids[len(ids) - length - self._step :]
                for ids, length in zip(input_ids.tolist(), self._lengths, strict=True)
            ]
        self._step += 1
        rows = len(self._seeds)
        configs, steps = [self._config] * rows, [self._step] * rows
        return sampled(scores.float(), configs, self._seeds, steps, histories, self._prompts)


def gumbel(seeds: torch.Tensor, steps: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Standard Gumbel noise (N, vocabulary) in fp32 from seeds and steps, both (N,) int64."""
    tokens = torch.arange(vocabulary, device=seeds.device) * _GAMMA
    rows = _mix(seeds + steps * _GAMMA)
    bits = _shift_right(_mix(_mix(rows[:, None] ^ tokens)), 41)
    # 23 bits and a half fit into float32; with 24 the largest would round to 1, noise without end.
    uniform = (bits.to(torch.float32) + 0.5) * 2**-23
    return -torch.log(-torch.log(uniform))


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift: >> on int64 copies the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shift_right(x, 30)) * _MULTIPLIER_1
    x = (x ^ _shift_right(x, 27)) * _MULTIPLIER_2
    return x ^ _shift_right(x, 31)
