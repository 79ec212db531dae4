"""Filters of sampling that transformers lacks, as ordinary logits processors."""

from __future__ import annotations

import torch
from transformers import LogitsProcessor


class TailFree(LogitsProcessor):
    """Tail-free sampling: cut where the sorted probabilities' curvature has nearly all been seen.

    With p in descending order, d = |second difference of p| and c = cumsum(d / sum d), the token at
    place i + 1 is dropped where c_i > z, and the last one with its neighbour. The likeliest always
    stays; where p has no curvature (all alike), all stay. z is above 0 and below 1.
    """

    def __init__(self, z: float) -> None:
        self._z = z

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (N, V) to scores (N, V)."""
        if scores.shape[-1] < 3:
            return scores
        ordered, places = scores.sort(dim=-1, descending=True, stable=True)
        curvature = ordered.softmax(-1).diff(dim=-1).diff(dim=-1).abs()
        total = curvature.sum(-1, keepdim=True)
        beyond = curvature.cumsum(-1) > self._z * total
        first = torch.zeros_like(beyond[:, :1])
        dropped = torch.cat([first, beyond, beyond[:, -1:]], dim=-1)
        return scores.masked_fill(dropped.scatter(-1, places, dropped), float("-inf"))


class Eta(LogitsProcessor):
    """Eta sampling: drop tokens less likely than min(e, sqrt(e) exp(-entropy)).

    Hewitt, Manning, Liang 2022 (arXiv 2210.15191). The likeliest always stays. transformers' own
    holds a tensor on one device.
    """

    def __init__(self, epsilon: float) -> None:
        self._epsilon = epsilon

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (N, V) to scores (N, V)."""
        likely = scores.softmax(-1)
        entropy = torch.special.entr(likely).sum(-1, keepdim=True)
        least = (self._epsilon**0.5 * (-entropy).exp()).clamp(max=self._epsilon)
        dropped = (likely < least) & (scores < scores.amax(-1, keepdim=True))
        return scores.masked_fill(dropped, float("-inf"))


class TopA(LogitsProcessor):
    """Top-a sampling: drop tokens less likely than ``a`` times the square of the likeliest one's.

    As a is at most 1, the likeliest always stays.
    """

    def __init__(self, a: float) -> None:
        self._a = a

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (N, V) to scores (N, V)."""
        likely = scores.softmax(-1)
        least = self._a * likely.amax(-1, keepdim=True) ** 2
        return scores.masked_fill(likely < least, float("-inf"))
