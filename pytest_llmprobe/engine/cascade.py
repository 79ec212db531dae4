"""Cascade attention: tokens attend to what their rows share and to what is their row's own.

Keys that many rows share are read once for all of them, and no row pays for the width or the
length of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward as scaled_dot_product

from pytest_llmprobe.engine.attention_parts import Part, attend, attend_to_all, attend_to_earlier
from pytest_llmprobe.engine.passes import Pass, SharedKeys
from pytest_llmprobe.whitebox.attention import Call, Output, Tap

REFUSED = ("position_bias", "head_mask")
"""Options of attention functions that change the scores in ways unknown here."""

EAGER_ONLY = ("softcap", "s_aux")
"""Those that torch's own function does not know; a model's eager attention is as here."""


FEW = 16
"""Tokens of a row, up to which their scores are written out rather than left to torch's kernel."""


class OwnKeys:
    """Keys and values that each row has for itself, at most ``capacity`` tokens, by layer.

    Keys are stored (rows, H, D, C), tokens last: the product of few queries with them takes half
    of the time so.
    """

    def __init__(self, rows: int, capacity: int) -> None:
        self.rows, self.capacity = rows, capacity
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def write(self, call: Call, now: Pass) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the keys of a pass, token by token.

        Returns:
            All keys of the pass's rows (P, H, C, D), and the values.
        """
        keys, values = self._room(call.layer, call.key, call.value)
        keys[now.places, :, :, now.columns] = call.key[0].transpose(0, 1)
        values[now.places, :, now.columns] = call.value[0].transpose(0, 1)
        rows = slice(now.rows.start, now.rows.stop)
        width = 0 if now.plain is None else now.plain.shape[-1]
        return keys[rows, ..., :width].transpose(2, 3), values[rows, :, :width]

    def begin(self, rows: range, shared: SharedKeys) -> None:
        """Give some rows a copy of shared keys as their first ones."""
        some, count = slice(rows.start, rows.stop), len(shared.positions)
        for layer, (key, value) in shared.layers.items():
            keys, values = self._room(layer, key, value)
            keys[some, ..., :count] = key.transpose(2, 3)
            values[some, :, :count] = value

    def _room(
        self, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if layer not in self._layers:
            # Zeros: what is hidden has no weight, but a NaN in unused memory would come through.
            (heads, size), (of, long) = key.shape[1::2], value.shape[1::2]
            self._layers[layer] = (
                key.new_zeros(self.rows, heads, size, self.capacity),
                value.new_zeros(self.rows, of, self.capacity, long),
            )
        return self._layers[layer]

    def select(self, places: torch.Tensor) -> None:
        """Keep some of the rows."""
        self.rows = len(places)
        self._layers = {
            layer: (keys[places], values[places]) for layer, (keys, values) in self._layers.items()
        }


class Cascade(Tap):
    """Attention of a whole batch, pass by pass: ``current`` is the next forward pass.

    Args:
        own: What rows have for themselves.
        windows: Tokens that a layer sees, for the layers that see some only.
        steered: Numbers of the layers that add a bias.
    """

    def __init__(
        self, own: OwnKeys, windows: Mapping[int, int], steered: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.own, self.current = own, Pass()
        self._windows, self._steered = windows, frozenset(steered)

    def run(self, call: Call) -> Output:
        """One layer's attention, if all that changes its scores is known: ``takes_tree`` asks."""
        now, steered = self.current, call.layer in self._steered
        window, options = self._windows.get(call.layer), call.options
        _check(call, window)
        if now.store is not None:
            now.store.layers[call.layer] = (call.key.contiguous(), call.value.contiguous())
        else:
            stored = self.own.write(call, now)
        bias, length = now.bias if steered else None, call.query.shape[2]
        if now.alone and (window is None or length <= window):
            return _whole(call, bias)
        query, cap, sinks = call.query, options.get("softcap"), options.get("s_aux")
        scale = options.get("scaling") or query.shape[-1] ** -0.5
        if now.is_step and not now.above and cap is None and sinks is None:
            bias = now.of_own(window, steered)
            return attend_to_all(query[0].transpose(0, 1), *stored, scale, bias)[None], None
        if now.alone or now.store is not None:
            part = attend_to_earlier(query, call.key, call.value, scale, bias, cap, window)
        else:
            part = _own(query, *stored, scale, now, now.of_own(window, steered), cap)
        for number, shared in enumerate(now.above):
            seen = now.of_shared(number, window, steered)
            if seen is not None:
                tokens = slice(shared.first, shared.end)
                keys, values = (x[:, :, seen.first :] for x in shared.keys.layers[call.layer])
                more = attend(query[:, :, tokens], keys, values, scale, seen.bias, cap)
                part = _put(part, tokens, more)
        output = part.output
        if sinks is not None:  # a score of no key: its share of the weights goes nowhere
            output = output * torch.sigmoid(part.lse - sinks.float().view(1, -1, 1, 1))
        return output.to(query.dtype).transpose(1, 2), None


def _check(call: Call, window: int | None) -> None:
    """Whether all that changes the scores is known.

    Raises:
        NotImplementedError: It is not.
    """
    options = call.options
    own = () if call.function is not scaled_dot_product else EAGER_ONLY
    if strange := [name for name in (*REFUSED, *own) if options.get(name) is not None]:
        raise NotImplementedError(f"attention with {strange[0]}")
    if options.get("sliding_window") not in (None, window):
        raise NotImplementedError("attention with a window that its cache has not")


def _whole(call: Call, bias: torch.Tensor | None) -> Output:
    """One text with all its keys, by the model's own attention function."""
    call = replace(call, mask=None)
    if bias is None and call.function is not scaled_dot_product:
        bias = call.query.new_zeros(1, 1, call.key.shape[2])  # eager hides nothing by itself
    if bias is not None:
        mask = call.biased(bias.to(call.query.dtype)[None])
        call = replace(call, mask=mask, triangular=True)
    return call.run()


def _own(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    now: Pass,
    seen: torch.Tensor,
    cap: float | None,
) -> Part:
    """Each token with the keys of its own row: (1, H, T, .)."""
    assert now.slots is not None
    rows, heads, count = len(keys), query.shape[1], query.shape[2]
    if now.width > FEW:
        keys = keys.contiguous()
    slots = query[0]
    if count != rows * now.width:
        slots = query.new_zeros(heads, rows * now.width, query.shape[-1])
        slots[:, now.slots] = query[0]
    slots = slots.unflatten(1, (rows, now.width)).transpose(0, 1)
    part = attend(slots, keys, values, scale, seen, cap)
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
