"""Linear layers whose weights are packed ahead for oneDNN, where that is measured to be faster.

torch's own product reads a weight as it lies in memory, which is slow for few rows. A packed copy
is private to the process, where the pages of a weights' file are shared by all that map it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import psutil
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

ROWS = (1, 8, 128)
"""Rows that are measured: a text's next token, a batch's, a prompt."""

LEAST, SAMPLE = 2**26, 2**26
"""Bytes of weights from which they matter, and that are measured: more than a cache holds."""

FASTER = 0.95
"""Of the time of torch's own product, what the packed one may take at most to be chosen."""

MEMORY_SHARE = 0.125
"""Of the free memory, what packed copies may take; keys, values and other workers need the rest."""

DTYPES = (torch.float32, torch.bfloat16)


class Weight(NamedTuple):
    """A weight as it was when it was packed: a change of it counts its version up."""

    source: torch.Tensor
    version: int
    packed: torch.Tensor


@dataclass
class PackedWeights:
    """The packed copies of one model; while ``active`` its layers use them in inference mode.

    Args:
        layers: Linear layers.
        chosen: For each of ``ROWS`` whether the packed product is faster.
    """

    layers: Sequence[Any]
    chosen: tuple[bool, ...]
    _weights: dict[Any, Weight] = field(default_factory=dict)
    _users: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def bytes(self) -> int:
        """Size of the copies."""
        return sum(layer.weight.nbytes for layer in self.layers)

    @property
    def where(self) -> str:
        """For which numbers of rows they are faster."""
        chosen = [str(rows) for rows, one in zip(ROWS, self.chosen, strict=True) if one]
        return f"for about {' and '.join(chosen)} rows"

    @contextmanager
    def active(self) -> Iterator[None]:
        """A block in which the layers multiply by the copies of what their weights are now."""
        with self._lock:
            if not self._users:
                for layer in self.layers:
                    layer.forward = self._product(layer)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    for layer in self.layers:
                        del layer.forward

    def _product(self, layer: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        known = self._weights.get(layer)
        if known is None or known.source is not layer.weight or _version(layer) != known.version:
            known = Weight(layer.weight, _version(layer), _packed(layer))
            self._weights[layer] = known
        by_own: Callable[..., torch.Tensor] = type(layer).forward
        by_packed: Callable[..., torch.Tensor] = torch.ops.mkldnn._linear_pointwise.default
        packed, bias, size, serves = known.packed, layer.bias, _inputs(layer), self._serves()

        def forward(input: torch.Tensor) -> torch.Tensor:
            rows = input.numel() // size
            # Another thread may want gradients meanwhile.
            if serves[min(rows, ROWS[-1])] and torch.is_inference_mode_enabled():
                return by_packed(input, packed, bias, "none", [], "")
            return by_own(layer, input)

        return forward

    def _serves(self) -> list[bool]:
        """By number of rows; each is like the measured number that is nearest by its factor."""
        serves = [False]
        for rows in range(1, ROWS[-1] + 1):
            near = min(range(len(ROWS)), key=lambda n: max(rows / ROWS[n], ROWS[n] / rows))
            serves.append(self.chosen[near])
        return serves


_KNOWN: WeakKeyDictionary[Any, PackedWeights | str] = WeakKeyDictionary()


def packed_weights(model: Any) -> PackedWeights | str:
    """The packed weights of a transformers model, or why it has none; measured once."""
    if model not in _KNOWN:
        _KNOWN[model] = _measured(model)
    return _KNOWN[model]


def _measured(model: Any) -> PackedWeights | str:
    if model.device.type != "cpu":
        return f"the model is on {model.device.type}"
    if not torch.backends.mkldnn.is_available() or not hasattr(
        torch.ops.mkldnn, "_linear_pointwise"
    ):
        return "this torch has no oneDNN"
    layers = [layer for layer in model.modules() if _can_be_packed(layer)]
    wanted = sum(layer.weight.nbytes for layer in layers)
    if wanted < LEAST:
        return "they are few"
    free = psutil.virtual_memory().available
    if wanted > MEMORY_SHARE * free:
        return f"{wanted / 2**30:.1f} GiB would be more than an eighth of the free memory"
    chosen = _comparison(layers)
    if not any(chosen):
        return "torch's own product was measured to be as fast"
    return PackedWeights(layers, chosen)


def _can_be_packed(layer: Any) -> bool:
    """A linear layer as it comes: no subclass, nothing put in its place, an ordinary weight."""
    if type(layer) not in (nn.Linear, Conv1D) or "forward" in vars(layer):
        return False
    weight = layer.weight
    plain = type(weight) is nn.Parameter and not weight.is_inference()
    if not plain or weight.device.type != "cpu" or weight.dtype not in DTYPES:
        return False
    supported = torch.ops.mkldnn._is_mkldnn_bf16_supported
    return weight.dtype != torch.bfloat16 or bool(supported())


@torch.inference_mode()
def _comparison(layers: Sequence[Any]) -> tuple[bool, ...]:
    """For each of ``ROWS`` whether some layers' packed products are faster, least of three runs."""
    sample: list[Any] = []
    for layer in layers:
        if sum(one.weight.nbytes for one in sample) < SAMPLE:
            sample.append(layer)
    packed = [_packed(layer) for layer in sample]
    product = torch.ops.mkldnn._linear_pointwise.default
    chosen = []
    for rows in ROWS:
        texts = [torch.ones(1, rows, _inputs(x), dtype=x.weight.dtype) for x in sample]
        own, its = [], []
        for _ in range(3):
            start = time.perf_counter()
            for layer, text in zip(sample, texts, strict=True):
                layer(text)
            middle = time.perf_counter()
            for layer, text, weight in zip(sample, texts, packed, strict=True):
                product(text, weight, layer.bias, "none", [], "")
            own.append(middle - start)
            its.append(time.perf_counter() - middle)
        chosen.append(min(its) < FASTER * min(own))
    return tuple(chosen)


def _packed(layer: Any) -> torch.Tensor:
    weight = layer.weight.detach()
    if isinstance(layer, Conv1D):
        weight = weight.t().contiguous()
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS[1])
    return packed


def _inputs(layer: Any) -> int:
    size: int = layer.weight.shape[0 if isinstance(layer, Conv1D) else 1]
    return size


def _version(layer: Any) -> int:
    version: int = layer.weight._version
    return version
