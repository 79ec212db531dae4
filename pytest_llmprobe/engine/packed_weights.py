"""A model's linear layers multiply by copies of their weights where that is measured to be faster.

A copy is private to its process, where the pages of a weights' file are shared by all that map it.
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

from pytest_llmprobe.engine.linear_products import (
    Product,
    can_be_copied,
    in_half,
    inputs_of,
    own,
    reordered,
)

ROWS = (1, 8, 128)
"""Rows that are measured: a text's next token, a batch's, a prompt."""

LEAST, SAMPLE = 2**26, 2**26
"""Bytes of weights from which they matter, and that are measured: more than a cache holds."""

TRIAL = 2**22
"""Bytes of weights that show what copies in 16 bits cost and save, at most."""

NEAREST = tuple(
    min(range(len(ROWS)), key=lambda n: max(rows / ROWS[n], ROWS[n] / rows))
    for rows in range(1, ROWS[-1] + 1)
)
"""For each number of rows the number of the measured one that is nearest by its factor."""

FASTER = 0.9
"""Of the time of another product, what one may take at most to be chosen in its place."""

MEMORY_SHARE = 0.125
"""Of the free memory, what copies may take; keys, values and other workers need the rest."""

MAKERS: dict[str, Callable[[Any], Product | None]] = {
    "torch": own,
    "oneDNN": reordered,
    "16 bits": in_half,
}
"""Ways to multiply."""


class Weight(NamedTuple):
    """A layer's weight as it was when it was copied: a change of it counts its version up."""

    source: torch.Tensor
    version: int
    products: dict[str, Product]


@dataclass
class PackedWeights:
    """The copies of one model's weights; while ``active`` its layers use them in inference mode.

    Copies in 16 bits take long to make, and are made when the model has been in use for as long.

    Args:
        layers: Linear layers.
        chosen: For each of ``ROWS`` the way that is fastest.
        half_s: Seconds that copies in 16 bits would take; None: they are none, or no faster.
    """

    layers: Sequence[Any]
    chosen: tuple[str, ...]
    half_s: float | None = None
    _weights: dict[Any, Weight] = field(default_factory=dict)
    _users: int = 0
    _used_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def described(self) -> str:
        """What is used, and how much memory it takes, in one sentence."""
        size = sum(layer.weight.nbytes for layer in self.layers) / 2**20
        used: dict[str, list[str]] = {way: [] for way in self.chosen if way != "torch"}
        for way, rows in zip(self.chosen, ROWS, strict=True):
            if way != "torch":
                used[way].append(str(rows))
        shares = {"oneDNN": 1.0, "16 bits": 0.5}
        said = [
            f"copied for {way}, measured faster for about {' and '.join(rows)} rows: "
            f"{shares[way] * size:.0f} MiB that each process has for itself"
            for way, rows in used.items()
        ]
        if self.half_s is not None:
            said.append(
                f"to be copied in 16 bits, which hold them, after {self.half_s:.0f} s of generation"
            )
        return "; ".join(said)

    @contextmanager
    def active(self) -> Iterator[None]:
        """A block in which the layers multiply by copies of what their weights are now."""
        with self._lock:
            if not self._users:
                if self.half_s is not None and self._used_s >= self.half_s:
                    self._halve()
                # All copies first: what fails for want of memory leaves the layers as they are.
                products = [self._product(layer) for layer in self.layers]
                for layer, product in zip(self.layers, products, strict=True):
                    layer.forward = product
            self._users += 1
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._used_s += time.perf_counter() - start
                self._users -= 1
                if not self._users:
                    for layer in self.layers:
                        del layer.forward

    def _halve(self) -> None:
        """Copy all weights in 16 bits, and choose again."""
        self.half_s = None
        if all("16 bits" in self._known(layer, ("16 bits",)) for layer in self.layers):
            sample = _sample(self.layers)
            products = {
                way: [self._known(layer, (way,))[way] for layer in sample]
                for way in dict.fromkeys((*self.chosen, "16 bits"))
            }
            self.chosen = tuple(_fastest(sample, products, rows) for rows in ROWS)
        for weight in self._weights.values():
            for way in set(weight.products) - set(self.chosen):
                del weight.products[way]

    def _known(self, layer: Any, ways: Sequence[str]) -> dict[str, Product]:
        """The layer's products in these ways, as far as it has them."""
        known = self._weights.get(layer)
        version: int = layer.weight._version
        if known is None or known.source is not layer.weight or known.version != version:
            known = self._weights[layer] = Weight(layer.weight, version, {})
        for way in ways:
            if way not in known.products and (product := MAKERS[way](layer)) is not None:
                known.products[way] = product
        return known.products

    def _product(self, layer: Any) -> Product:
        """What is fastest for the rows that come; the layer's own where gradients may follow."""
        products, size, own_product = self._known(layer, self.chosen), inputs_of(layer), own(layer)
        table = [own_product, *(products.get(self.chosen[n], own_product) for n in NEAREST)]

        def forward(input: torch.Tensor) -> torch.Tensor:
            if not torch.is_inference_mode_enabled():  # another thread may want gradients meanwhile
                return own_product(input)
            return table[min(input.numel() // size, ROWS[-1])](input)

        return forward


_KNOWN: WeakKeyDictionary[Any, PackedWeights | str] = WeakKeyDictionary()


def packed_weights(model: Any) -> PackedWeights | str:
    """The copied weights of a transformers model, or why it has none; measured once."""
    if model not in _KNOWN:
        _KNOWN[model] = _measured(model)
    return _KNOWN[model]


@torch.inference_mode()
def _measured(model: Any) -> PackedWeights | str:
    if model.device.type != "cpu":
        return f"not copied: the model is on {model.device.type}"
    if not torch.backends.mkldnn.is_available() or not hasattr(
        torch.ops.mkldnn, "_linear_pointwise"
    ):
        return "not copied: this torch has no oneDNN"
    layers = [layer for layer in model.modules() if can_be_copied(layer)]
    wanted = sum(layer.weight.nbytes for layer in layers)
    if wanted < LEAST:
        return "not copied: they are few"
    if wanted > MEMORY_SHARE * psutil.virtual_memory().available:
        return (
            f"not copied: {wanted / 2**30:.1f} GiB would be more than an eighth of the free memory"
        )
    sample = _sample(layers)
    products = {"torch": list(map(own, sample)), "oneDNN": list(map(reordered, sample))}
    chosen = tuple(_fastest(sample, products, rows) for rows in ROWS)
    half_s = _cost_of_halves(layers, chosen)
    if half_s is None and set(chosen) == {"torch"}:
        return "not copied: torch's own product was measured to be as fast"
    return PackedWeights(layers, chosen, half_s)


def _cost_of_halves(layers: Sequence[Any], chosen: Sequence[str]) -> float | None:
    """Seconds that copies in 16 bits would take; None if one layer's is none or no faster."""
    small = [layer for layer in layers if layer.weight.nbytes <= TRIAL]
    trial = max(small, key=lambda layer: layer.weight.nbytes, default=layers[0])
    start = time.perf_counter()
    product = in_half(trial)
    taken = time.perf_counter() - start
    if product is None:
        return None
    now = own(trial) if chosen[1] == "torch" else reordered(trial)
    products = {chosen[1]: [now], "16 bits": [product]}
    if _fastest([trial], products, ROWS[1], turns=20) != "16 bits":
        return None
    size: int = trial.weight.numel()
    return taken * sum(int(layer.weight.numel()) for layer in layers) / size


def _sample(layers: Sequence[Any]) -> list[Any]:
    sample: list[Any] = []
    for layer in layers:
        if sum(one.weight.nbytes for one in sample) < SAMPLE:
            sample.append(layer)
    return sample


def _fastest(
    layers: Sequence[Any], products: dict[str, list[Product]], rows: int, turns: int = 3
) -> str:
    """The way in which the layers' products of so many rows take least, at the best of the turns.

    The first way stays unless another is clearly faster.
    """
    texts = [torch.ones(1, rows, inputs_of(x), dtype=x.weight.dtype) for x in layers]
    taken = dict.fromkeys(products, float("inf"))
    for _ in range(turns):
        for way, each in products.items():
            start = time.perf_counter()
            for product, text in zip(each, texts, strict=True):
                product(text)
            taken[way] = min(taken[way], time.perf_counter() - start)
    first = next(iter(products))
    best = min(taken, key=lambda way: taken[way])
    return best if taken[best] < FASTER * taken[first] else first
