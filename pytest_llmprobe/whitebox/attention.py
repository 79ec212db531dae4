"""Taps on a model's attention: change the mask of a layer, or watch what the layer attends to.

A tap works through transformers' own interfaces for attention and mask functions, under names
registered here, and is active in one context (thread or task) only.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

PREFIX = "llmprobe_"
BASES = ("sdpa", "eager")
"""Attention implementations that add a mask of numbers to the scores."""

BLOCKS = 8
"""Parts of a text's queries that attend one after the other; see ``Call.triangular``."""

LONG = 256
"""Queries from which blocks pay."""

Output: TypeAlias = tuple[torch.Tensor, torch.Tensor | None]
"""Of an attention function: (B, T, H, D), and the weights (B, H, T, S) if it keeps them."""


@dataclass(frozen=True)
class Call:
    """One layer's attention in one forward pass.

    Args:
        module: The attention module.
        function: The attention function that the model uses.
        query: (B, H, T, D).
        key: (B, H of keys, S, D).
        value: (B, H of keys, S, D of values).
        mask: Booleans or numbers to add, broadcast to (B, H, T, S); None: see ``causal``.
        options: The function's other arguments.
        first_key: Position of the first key; above 0 where a layer keeps a window only.
        first_query: Position of the first query.
        triangular: The whole text attends to itself, and nobody asked for a mask: a kernel would
            have skipped the later keys, which a mask makes it compute.
    """

    module: Any
    function: Callable[..., Output]
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    options: Mapping[str, Any]
    first_key: int = 0
    first_query: int = 0
    triangular: bool = False

    @property
    def layer(self) -> int:
        """Number of the layer."""
        return int(self.module.layer_idx)

    @property
    def causal(self) -> bool:
        """Whether a missing mask means that queries see no later keys."""
        given = self.options.get("is_causal")
        causal = getattr(self.module, "is_causal", True) if given is None else given
        return bool(causal) and self.query.shape[2] > 1

    def run(self) -> Output:
        """What the model's own function gives."""
        if self.triangular and self.mask is not None:
            return self._in_blocks(self.mask)
        return self.function(
            self.module, self.query, self.key, self.value, self.mask, **self.options
        )

    def _in_blocks(self, mask: torch.Tensor) -> Output:
        """Each block of queries with the keys up to its end: half of the work of all with all."""
        count = self.query.shape[2]
        step = -(-count // BLOCKS)
        parts = []
        for start in range(0, count, step):
            end = min(start + step, count)
            query, key = self.query[:, :, start:end], self.key[:, :, :end]
            rows = mask[..., start:end, :end]
            output, _ = self.function(
                self.module, query, key, self.value[:, :, :end], rows, **self.options
            )
            parts.append(output)
        return torch.cat(parts, dim=1), None

    def biased(self, bias: torch.Tensor, first: int = 0, count: int | None = None) -> torch.Tensor:
        """The mask of some queries, as numbers to add, with a bias on the keys that they see.

        The bias is broadcast to (B, H, count, S), and its dtype kept. Where a query does not see a
        key, the dtype's lowest number stands.
        """
        lowest = torch.finfo(bias.dtype).min
        last = self.query.shape[2] if count is None else first + count
        if self.mask is None:
            if not self.causal:
                return bias
            queries = torch.arange(first, last, device=bias.device)[:, None]
            keys = torch.arange(self.key.shape[2], device=bias.device)
            return torch.where(queries >= keys, bias, lowest)
        mask = self.mask[..., : self.key.shape[2]]
        mask = mask[..., first:last, :] if mask.shape[-2] > 1 else mask
        if mask.dtype == torch.bool:
            return torch.where(mask, bias, lowest)
        # A sum below the lowest number would be infinite, and a row of infinities not a number.
        return (mask.to(bias.dtype) + bias).clamp(min=lowest)


class Tap:
    """Sees every attention call of one model while it is active; see ``tapped``."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[int, int]] = {}

    def mask(self, call: Call) -> torch.Tensor | None:
        """The mask that the layer is to use."""
        return call.mask

    def run(self, call: Call) -> Output | None:
        """The layer's output in place of the model's own function's, or None."""
        return None

    def located(self, keys: int, first_key: int, first_query: int) -> None:
        """Told by a mask's maker where the layers with so many keys stand in the text."""
        self._places[keys] = (first_key, first_query)

    def place(self, queries: int, keys: int) -> tuple[int, int]:
        """Positions of the first key and query; no mask's maker is asked about a mask of 4D."""
        return self._places.get(keys, (0, keys - queries))


@dataclass
class _Switch:
    """What a model used before its names were registered, its parts, and how many taps it has."""

    before: dict[str, str]
    modules: frozenset[int]
    configs: frozenset[int]
    taps: int = 0


_ACTIVE: ContextVar[tuple[tuple[Tap, _Switch], ...]] = ContextVar("llmprobe_taps", default=())
_SWITCHES: WeakKeyDictionary[Any, _Switch] = WeakKeyDictionary()
_LOCK = threading.Lock()


@contextmanager
def tapped(model: Any, tap: Tap) -> Iterator[None]:
    """Let a tap see the attention of a transformers model, in this context only.

    The attention must be of a kind in ``BASES``. Taps may be nested: each gets the mask that those
    before it have made. Other threads may use the model meanwhile, and tap it too: without an
    active tap its attention is as ever.
    """
    switch = _switched_on(model)
    token = _ACTIVE.set((*_ACTIVE.get(), (tap, switch)))
    try:
        yield
    finally:
        _ACTIVE.reset(token)
        with _LOCK:
            switch.taps -= 1
            if not switch.taps:
                del _SWITCHES[model]
                model.set_attn_implementation(switch.before)


def is_active(tap: Tap) -> bool:
    """Whether this context is in the tap's ``with`` block."""
    return any(active is tap for active, _ in _ACTIVE.get())


def is_tapped(model: Any) -> bool:
    """Whether this context is in the ``with`` block of any tap of the model."""
    return any(id(model) in switch.modules for _, switch in _ACTIVE.get())


def attention_kind(model: Any) -> str:
    """The model's attention implementation, taps or none."""
    config = model.config.get_text_config()
    return str(config._attn_implementation).removeprefix(PREFIX)


def _switched_on(model: Any) -> _Switch:
    with _LOCK:
        switch = _SWITCHES.get(model)
        if switch is None:
            switch = _Switch(
                _implementations(model.config),
                frozenset(map(id, model.modules())),
                frozenset(id(part.config) for part in model.modules() if hasattr(part, "config")),
            )
            model.set_attn_implementation(
                {k: PREFIX + v if v in BASES else v for k, v in switch.before.items()}
            )
            _SWITCHES[model] = switch
        switch.taps += 1
        return switch


def _implementations(config: Any) -> dict[str, str]:
    """By name of the part, as ``set_attn_implementation`` takes them; "" is the whole model."""
    parts = {"": config} | {name: getattr(config, name, None) for name in config.sub_configs}
    return {name: part._attn_implementation for name, part in parts.items() if part is not None}


def own_eager(module: Any) -> Callable[..., Output] | None:
    """The eager attention of a module's own file: it knows soft-caps, sinks and scales."""
    for parent in type(module).__mro__:
        function = getattr(sys.modules.get(parent.__module__), "eager_attention_forward", None)
        if function is not None:
            return function  # type: ignore[no-any-return]
    return None


def _attention(base: str) -> Callable[..., Output]:
    def attention(
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **options: Any,
    ) -> Output:
        function = own_eager(module) if base == "eager" else ALL_ATTENTION_FUNCTIONS[base]
        if function is None:
            raise NotImplementedError(f"{type(module).__name__} has no eager attention function")
        call = Call(module, function, query, key, value, attention_mask, options)
        if base == "sdpa" and attention_mask is None and query.shape[2] >= LONG:
            call = replace(call, triangular=call.causal and key.shape[2] == query.shape[2])
        if base == "eager" and attention_mask is not None and attention_mask.dtype == torch.bool:
            # A caller who saw no "eager" in the model's config gives booleans.
            call = replace(call, mask=call.biased(query.new_zeros(())))
        taps = [tap for tap, switch in _ACTIVE.get() if id(module) in switch.modules]
        for tap in taps:
            place = tap.place(query.shape[2], key.shape[2])
            if place != (call.first_key, call.first_query):
                call = replace(call, first_key=place[0], first_query=place[1])
            if (mask := tap.mask(call)) is not call.mask:
                call = replace(call, mask=mask)
        return next((output for tap in taps if (output := tap.run(call))), None) or call.run()

    return attention


def _mask(base: str) -> Callable[..., torch.Tensor | None]:
    def mask(*args: Any, **options: Any) -> torch.Tensor | None:
        for tap, switch in _ACTIVE.get():
            if id(options.get("config")) in switch.configs:
                first_key, first_query = options.get("kv_offset", 0), options.get("q_offset", 0)
                tap.located(int(options["kv_length"]), int(first_key), int(first_query))
        made: torch.Tensor | None = ALL_MASK_ATTENTION_FUNCTIONS[base](*args, **options)
        return made

    return mask


for _base in BASES:
    # A name without a mask function would get no masks at all, silently.
    AttentionInterface.register(PREFIX + _base, _attention(_base))
    AttentionMaskInterface.register(PREFIX + _base, _mask(_base))
