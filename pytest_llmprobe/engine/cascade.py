"""Cascade attention: tokens attend to what their rows share and to what is their row's own.

A softmax over several blocks of keys is put together from what it is over each of them (online
softmax, Milakov and Gimelshein 2018, arXiv 1805.02867), so keys that many rows share are read once
for all of them, and no row pays for the width or the length of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward as scaled_dot_product

from pytest_llmprobe.whitebox.attention import Call, Output, Tap

LARGEST = 2**24
"""Scores of one block that are held at once, at most (64 MiB); queries wait for their turn."""

FAINT = -60.0
"""Scores are at least this far below the highest: e^-60 is nothing beside 1 in any dtype, and the
exponential of less is a denormal number, which a CPU takes 25 times as long for."""

REFUSED = ("softcap", "s_aux", "sliding_window", "position_bias", "head_mask")
"""Options of attention functions that change the scores in ways unknown here."""


class Part(NamedTuple):
    """Attention to some of the keys, before it is divided by the sum of all weights.

    Args:
        output: Weighted values (H, T, D), float32.
        total: Sums of weights (H, T, 1).
        top: Highest scores (H, T, 1), which the weights are relative to.
    """

    output: torch.Tensor
    total: torch.Tensor
    top: torch.Tensor

    def plus(self, other: Part) -> Part:
        """Attention to both blocks of keys."""
        top = torch.maximum(self.top, other.top)
        mine, its = (self.top - top).exp_(), (other.top - top).exp_()
        output = (self.output * mine).add_(other.output * its)
        return Part(output, (self.total * mine).add_(other.total * its), top)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    bias: torch.Tensor | None = None,
) -> Part:
    """Attention of queries to one block of keys.

    Args:
        query: (B, H, T, D).
        key: (B, H of keys, S, D); H is a multiple of it.
        value: (B, H of keys, S, D of values).
        scale: Factor of the scores.
        bias: Added to the scores, broadcast to (B, T, S); -inf hides a key.

    Returns:
        Shapes as of the queries, with a batch in front.
    """
    batch, heads = query.shape[:2]
    queries = query.split(max(1, LARGEST // (batch * heads * key.shape[2])), dim=2)
    if len(queries) == 1:
        return _attend(query, key, value, scale, bias)
    biases: Sequence[torch.Tensor | None] = [bias] * len(queries)
    if bias is not None and bias.shape[-2] > 1:
        biases = bias.split(queries[0].shape[2], dim=-2)
    parts = [
        _attend(some, key, value, scale, its) for some, its in zip(queries, biases, strict=True)
    ]
    return Part(*(torch.cat(same, dim=2) for same in zip(*parts, strict=True)))


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    bias: torch.Tensor | None,
) -> Part:
    batch, heads, count, size = query.shape
    groups = heads // key.shape[1]
    folded = (query * scale).reshape(batch, key.shape[1], groups * count, size)
    scores = torch.matmul(folded, key.transpose(2, 3)).float()
    if bias is not None:
        scores.unflatten(2, (groups, count)).add_(bias[:, None, None])
    top = scores.amax(-1, keepdim=True)
    weights = scores.sub_(top).clamp_(min=FAINT).exp_()
    total = weights.sum(-1, keepdim=True)
    output = torch.matmul(weights.to(value.dtype), value).float()
    return Part(*(part.reshape(batch, heads, count, -1) for part in (output, total, top)))


@dataclass
class SharedKeys:
    """Keys and values of tokens that neighbouring rows share, by layer.

    Args:
        rows: Numbers of these rows.
        bias: What steering adds to the scores of the keys (1, 1, S), or None.
        layers: Keys and values, both (1, H, S, D).
    """

    rows: range
    bias: torch.Tensor | None = None
    layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)


class OwnKeys:
    """Keys and values that each row has for itself, at most ``capacity`` tokens, by layer."""

    def __init__(self, rows: int, capacity: int) -> None:
        self.rows, self.capacity = rows, capacity
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def write(self, call: Call, now: Pass) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the keys of a pass, token by token.

        Returns:
            All keys of the pass's rows (P, H, C, D), and the values.
        """
        if call.layer not in self._layers:
            self._layers[call.layer] = (self._room(call.key), self._room(call.value))
        keys, values = self._layers[call.layer]
        keys[now.places, :, now.columns] = call.key[0].transpose(0, 1)
        values[now.places, :, now.columns] = call.value[0].transpose(0, 1)
        rows = slice(now.rows.start, now.rows.stop)
        width = 0 if now.plain is None else now.plain.shape[-1]
        return keys[rows, :, :width], values[rows, :, :width]

    def _room(self, states: torch.Tensor) -> torch.Tensor:
        # Zeros: what is hidden has no weight, but a NaN in unused memory would come through.
        return states.new_zeros(self.rows, states.shape[1], self.capacity, states.shape[3])

    def select(self, places: torch.Tensor) -> None:
        """Keep some of the rows."""
        self.rows = len(places)
        self._layers = {
            layer: (keys[places], values[places]) for layer, (keys, values) in self._layers.items()
        }


class Shared(NamedTuple):
    """Tokens of a pass that attend to a block of shared keys: from ``first`` up to ``end``."""

    keys: SharedKeys
    first: int
    end: int
    bias: torch.Tensor | None


@dataclass(frozen=True)
class Pass:
    """What the tokens of one forward pass attend to.

    Args:
        above: Shared keys.
        store: Keys that the pass makes are shared, and kept here; None: they are rows' own.
        bias: For the tokens among themselves (1, 1, T), or None; only where they are one text.
        alone: The tokens are one text from its beginning: the model's own function serves.
        rows: The pass's places among the rows, from the first to the last.
        width: Most tokens of a row.
        slots: (T,) number of each token's slot: row by row, ``width`` slots each.
        places: (T,) each token's row.
        columns: (T,) where each token is stored in its row.
        visible: (rows, width, C) 0 where a slot sees a column of its row, else -inf, plus a bias.
        plain: The same without the bias, for layers that are not steered.
    """

    above: Sequence[Shared] = ()
    store: SharedKeys | None = None
    bias: torch.Tensor | None = None
    alone: bool = False
    rows: range = range(0)
    width: int = 0
    slots: torch.Tensor | None = None
    places: torch.Tensor | None = None
    columns: torch.Tensor | None = None
    visible: torch.Tensor | None = None
    plain: torch.Tensor | None = None


class Cascade(Tap):
    """Attention of a whole batch, pass by pass: ``current`` is the next forward pass.

    The layers with the numbers in ``steered`` add a bias.
    """

    def __init__(self, own: OwnKeys, steered: Sequence[int] = ()) -> None:
        super().__init__()
        self.own, self.current = own, Pass()
        self._steered = frozenset(steered)

    def run(self, call: Call) -> Output:
        """One layer's attention, if all that changes its scores is known: ``takes_tree`` asks."""
        if strange := [name for name in REFUSED if call.options.get(name) is not None]:
            raise NotImplementedError(f"attention with {strange[0]}")
        now, steered = self.current, call.layer in self._steered
        if now.store is not None:
            now.store.layers[call.layer] = (call.key.contiguous(), call.value.contiguous())
        else:
            stored = self.own.write(call, now)
        if now.alone:
            return _whole(call, now.bias if steered else None)
        scale = call.options.get("scaling") or call.query.shape[-1] ** -0.5
        if now.store is not None:
            part = _among(call, scale, now.bias if steered else None)
        else:
            part = _own(call.query, *stored, scale, now, steered)
        for shared in now.above:
            tokens = slice(shared.first, shared.end)
            bias = shared.bias if steered else None
            block = shared.keys.layers[call.layer]
            part = _put(part, tokens, attend(call.query[:, :, tokens], *block, scale, bias))
        output = (part.output / part.total).to(call.query.dtype)
        return output.transpose(1, 2), None


def _whole(call: Call, bias: torch.Tensor | None) -> Output:
    """One text with all its keys, by the model's own attention function."""
    call = replace(call, mask=None)
    if bias is None and call.function is not scaled_dot_product:
        bias = call.query.new_zeros(1, 1, call.key.shape[2])  # eager hides nothing by itself
    if bias is not None:
        mask = call.biased(bias.to(call.query.dtype)[None])
        call = replace(call, mask=mask, triangular=True)
    return call.run()


def _among(call: Call, scale: float, bias: torch.Tensor | None) -> Part:
    """The tokens of one text among themselves: each sees those before it."""
    count = call.query.shape[2]
    later = torch.full((count, count), -torch.inf, device=call.query.device).triu(1)
    hidden = later[None] if bias is None else later + bias
    return attend(call.query, call.key, call.value, scale, hidden)


def _own(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    now: Pass,
    steered: bool,
) -> Part:
    """Each token with the keys of its own row: (1, H, T, .)."""
    assert now.slots is not None
    rows, heads, count = len(keys), query.shape[1], query.shape[2]
    slots = query[0]
    if count != rows * now.width:
        slots = query.new_zeros(heads, rows * now.width, query.shape[-1])
        slots[:, now.slots] = query[0]
    slots = slots.unflatten(1, (rows, now.width)).transpose(0, 1)
    part = attend(slots, keys, values, scale, now.visible if steered else now.plain)
    flat = (p.transpose(0, 1).flatten(1, 2) for p in part)
    if count != rows * now.width:
        flat = (p[:, now.slots] for p in flat)
    return Part(*(p[None] for p in flat))


def _put(part: Part, tokens: slice, more: Part) -> Part:
    """Add what some of the tokens found elsewhere."""
    if tokens == slice(0, part.output.shape[2]):
        return part.plus(more)
    both = Part(*(p[:, :, tokens] for p in part)).plus(more)
    for whole, new in zip(part, both, strict=True):
        whole[:, :, tokens] = new
    return part
