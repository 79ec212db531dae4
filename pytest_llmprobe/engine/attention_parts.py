"""Attention to blocks of keys, put together to attention to all of them.

A softmax over several blocks of keys is put together from what it is over each of them and the
logarithm of its sum there (Milakov and Gimelshein 2018, arXiv 1805.02867).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from pytest_llmprobe.engine.linear_products import is_widened

LARGEST = 2**24
"""Scores of one block that are held at once, at most (64 MiB); queries wait for their turn."""

FAINT = -60.0
"""Scores are at least this far below the highest: e^-60 is nothing beside 1 in any dtype, and the
exponential of less is a denormal number, which a CPU takes 25 times as long for."""

BLOCK = 512
"""Queries of a text that attend at once where they need a mask."""

UNSEEN = -1e30
"""In a bias: hides a key also from a query that sees none of its block. Beside a block that it
does see such a block has no weight, where minus infinity would be no number."""


class Part(NamedTuple):
    """Attention to some of the keys.

    Args:
        output: Weighted values (B, H, T, D), float32.
        lse: Logarithms of the sums of exponentials of the scores (B, H, T, 1), float32.
    """

    output: torch.Tensor
    lse: torch.Tensor

    def plus(self, other: Part) -> Part:
        """Attention to both blocks of keys."""
        share = torch.sigmoid(other.lse - self.lse)
        output = torch.lerp(self.output, other.output, share)
        return Part(output, torch.logaddexp(self.lse, other.lse))


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    bias: torch.Tensor | None = None,
    cap: float | None = None,
) -> Part:
    """Attention of queries to one block of keys.

    Args:
        query: (B, H, T, D).
        key: (B, H of keys, S, D); H is a multiple of it.
        value: (B, H of keys, S, D of values).
        scale: Factor of the scores.
        bias: Added to the scores, broadcast to (B, T, S); -inf hides a key.
        cap: What the scores are squeezed to be below, before the bias: cap * tanh(scores / cap).

    Returns:
        Shapes as of the queries, with a batch in front.
    """
    query, key, value = _widened(query, key, value)
    batch, heads = query.shape[:2]
    queries = query.split(max(1, LARGEST // (batch * heads * key.shape[2])), dim=2)
    if len(queries) == 1:
        return _attend(query, key, value, scale, bias, cap)
    biases: Sequence[torch.Tensor | None] = [bias] * len(queries)
    if bias is not None and bias.shape[-2] > 1:
        biases = bias.split(queries[0].shape[2], dim=-2)
    parts = [
        _attend(some, key, value, scale, its, cap)
        for some, its in zip(queries, biases, strict=True)
    ]
    return Part(*(torch.cat(same, dim=2) for same in zip(*parts, strict=True)))


def attend_to_all(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, bias: torch.Tensor
) -> torch.Tensor:
    """Attention of one query of each text to all its keys, for which a softmax does.

    Args:
        query: (B, H, D).
        key: (B, H of keys, S, D).
        value: (B, H of keys, S, D of values).
        scale: Factor of the scores.
        bias: Of the keys (B, 1, S).

    Returns:
        (B, H, D of values), in the dtype of the values.
    """
    dtype, (query, key, value) = value.dtype, _widened(query, key, value)
    grouped = query.unflatten(1, (key.shape[1], -1))  # (B, H of keys, G, D)
    scores = torch.matmul(grouped * scale, key.transpose(2, 3)).float()
    weights = torch.softmax(scores.add_(bias[:, None]), dim=-1)
    return torch.matmul(weights.to(value.dtype), value).flatten(1, 2).to(dtype)


def attend_to_earlier(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    bias: torch.Tensor | None = None,
    cap: float | None = None,
    window: int | None = None,
) -> Part:
    """Attention of the tokens of a text to themselves and those before them; as ``attend``.

    Args:
        query: (B, H, T, D).
        key: (B, H of keys, T, D).
        value: (B, H of keys, T, D of values).
        scale: Factor of the scores.
        bias: Of each key (1, 1, T).
        cap: As of ``attend``.
        window: Keys that a token sees, its own included; None: all.
    """
    query, key, value = _widened(query, key, value)
    count = query.shape[2]
    narrow = window is not None and window < count
    if _fused(query, value, cap) and bias is None and not narrow:
        return _causal(query, key, value, scale)
    parts = []
    for start in range(0, count, BLOCK):  # no mask of all queries with all keys is ever made
        end = min(start + BLOCK, count)
        first = max(0, start - window + 1) if window is not None else 0
        seen = seen_keys(range(start, end), range(first, end), window, query.device)
        if bias is not None:
            seen = seen + bias[..., first:end]
        keys, values = key[:, :, first:end], value[:, :, first:end]
        parts.append(attend(query[:, :, start:end], keys, values, scale, seen, cap))
    return Part(*(torch.cat(same, dim=2) for same in zip(*parts, strict=True)))


def seen_keys(
    queries: range, keys: range, window: int | None, device: torch.device
) -> torch.Tensor:
    """(1, T, S), to be added to scores: which keys of a text its tokens see, by their positions."""
    at = torch.arange(queries.start, queries.stop, device=device)[:, None]
    places = torch.arange(keys.start, keys.stop, device=device)
    hidden = places > at
    if window is not None:
        hidden |= places <= at - window
    return torch.zeros(hidden.shape, device=device).masked_fill_(hidden, -torch.inf)[None]


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    bias: torch.Tensor | None,
    cap: float | None,
) -> Part:
    batch, heads, count, size = query.shape
    groups = heads // key.shape[1]
    folded = query.reshape(batch, key.shape[1], groups * count, size)
    if _fused(query, value, cap) and key.stride(-1) == 1:
        if bias is not None:
            bias = bias[:, None, None].expand(-1, 1, groups, count, -1).flatten(2, 3)
        part = _kernel(folded, key, value, scale, bias)
    else:
        part = _written_out(folded, key, value, scale, bias, cap, groups)
    return Part(*(states.reshape(batch, heads, count, -1) for states in part))


def _widened(*tensors: torch.Tensor) -> Sequence[torch.Tensor]:
    """In float32 where a processor has no products of what they are in."""
    if tensors[0].device.type == "cpu" and is_widened(tensors[0].dtype):
        return [tensor.float() for tensor in tensors]
    return tensors


def _fused(query: torch.Tensor, value: torch.Tensor, cap: float | None) -> bool:
    """Whether torch's kernel for CPUs serves; in fewer bits its outputs would be rounded twice."""
    float32 = query.dtype == torch.float32 and query.device.type == "cpu"
    return float32 and cap is None and query.shape[-1] == value.shape[-1]


def _causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> Part:
    """A head of each group at a time: the kernel wants as many heads of keys as of queries."""
    groups = query.shape[1] // key.shape[1]
    parts = [
        _kernel(query[:, first::groups], key, value, scale, None, causal=True)
        for first in range(groups)
    ]
    return Part(*(torch.stack(same, dim=2).flatten(1, 2) for same in zip(*parts, strict=True)))


def _kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    bias: torch.Tensor | None,
    causal: bool = False,
) -> Part:
    output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, attn_mask=bias, scale=scale
    )
    return Part(output, lse[..., None])


def _written_out(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    bias: torch.Tensor | None,
    cap: float | None,
    groups: int,
) -> Part:
    scores = torch.matmul(query * scale, key.transpose(2, 3)).float()
    if cap is not None:
        scores = scores.div_(cap).tanh_().mul_(cap)
    if bias is not None:
        scores.unflatten(2, (groups, -1)).add_(bias[:, None, None])
    top = scores.amax(-1, keepdim=True)
    weights = scores.sub_(top).clamp_(min=FAINT).exp_()
    total = weights.sum(-1, keepdim=True)
    output = torch.matmul(weights.to(value.dtype), value).float()
    return Part(output / total, top + total.log())
