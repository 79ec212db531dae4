"""Cascade attention: tokens attend to what their rows share and to what is their row's own.

Keys that many rows share are read once for all of them, and no row pays for the width or the
length of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward as scaled_dot_product

from pytest_llmprobe.engine.attention_parts import Part, attend, attend_to_earlier
from pytest_llmprobe.whitebox.attention import Call, Output, Tap

REFUSED = ("softcap", "s_aux", "sliding_window", "position_bias", "head_mask")
"""Options of attention functions that change the scores in ways unknown here."""


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
        return part.output.to(call.query.dtype).transpose(1, 2), None


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
    if bias is None:
        return attend_to_earlier(call.query, call.key, call.value, scale)
    count = call.query.shape[2]
    later = torch.full((count, count), -torch.inf, device=call.query.device).triu(1)
    return attend(call.query, call.key, call.value, scale, later + bias)


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
