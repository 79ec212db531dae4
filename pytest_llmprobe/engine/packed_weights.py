"""A model's linear layers multiply by copies of their weights where that is measured to be faster.

A copy is private to its process, where the pages of a weights' file are shared by all that map it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from operator import is_ as _is
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import psutil
import torch

from pytest_llmprobe.engine.linear_products import (
    Product,
    can_be_copied,
    in_half,
    inputs_of,
    is_widened,
    own,
    reordered,
)
from pytest_llmprobe.engine.same_input import Choice, Group, Together, groups_of, put_in_place

ROWS = (1, 8, 128)
"""Rows that are measured: a text's next token, a batch's, a prompt."""

LEAST, SAMPLE = 2**26, 2**26
"""Bytes of weights of which copies are made at once, and that are measured: more than a cache
holds. Copies of fewer weights wait until they have been in use."""

FEW, PATIENCE_S = 2**22, 2.0
"""Bytes of weights that are never copied, and seconds of generation before a small model's are."""

TRIAL = 2**22
"""Bytes of weights that show what copies in 16 bits cost and save, at most."""

NEAREST = tuple(
    min(range(len(ROWS)), key=lambda n: max(rows / ROWS[n], ROWS[n] / rows))
    for rows in range(1, ROWS[-1] + 1)
)
"""For each number of rows the number of the measured one that is nearest by its factor."""

FASTER = 0.9
"""Of the time of another product, what one may take at most to be chosen in its place."""

AS_FAST = "not copied: torch's own product was measured to be as fast"

MEMORY_SHARE = 0.125
"""Of the free memory, what copies may take; keys, values and other workers need the rest."""

MAKERS: dict[str, Callable[[Group], Product | None]] = {
    "torch": own,
    "oneDNN": reordered,
    "16 bits": in_half,
}
"""Ways to multiply."""


class Weights(NamedTuple):
    """A group's weights and biases as they were copied: a change of one counts its version up."""

    sources: tuple[torch.Tensor, ...]
    versions: tuple[int, ...]
    products: dict[str, Product]


@dataclass
class PackedWeights:
    """The copies of one model's weights; while ``active`` its layers use them in inference mode.

    Copies in 16 bits take long to make, and are made when the model has been in use for as long.

    Args:
        groups: Linear layers; those of one group have one copy.
        chosen: For each of ``ROWS`` the way that is fastest.
        half_s: Seconds of use after which copies in 16 bits are made; None: they are none, or no
            faster.
    """

    groups: Sequence[Group]
    chosen: tuple[str, ...]
    half_s: float | None = None
    _weights: dict[Group, Weights] = field(default_factory=dict)
    _placed: ExitStack = field(default_factory=ExitStack)
    _users: int = 0
    _used_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def layers(self) -> list[Any]:
        """Of all groups."""
        return [layer for group in self.groups for layer in group]

    @property
    def in_use(self) -> bool:
        """Whether there are copies by which layers multiply."""
        return set(self.chosen) != {"torch"}

    @property
    def described(self) -> str:
        """What is used, and how much memory it takes, in one sentence."""
        weights = [layer.weight for layer in self.layers]
        sizes = {
            "oneDNN": sum(weight.nbytes for weight in weights) / 2**20,
            "16 bits": sum(weight.numel() for weight in weights) / 2**19,
        }
        used: dict[str, list[str]] = {way: [] for way in self.chosen if way != "torch"}
        for way, rows in zip(self.chosen, ROWS, strict=True):
            if way != "torch":
                used[way].append(str(rows))
        lacking = sorted({str(w.dtype).partition(".")[2] for w in weights if is_widened(w.dtype)})
        said = []
        for way, its in used.items():
            why = f"measured faster for about {' and '.join(its)} rows"
            if lacking:
                why = f"as this processor has no instructions for {' and '.join(lacking)}"
            mib = f"{sizes[way]:.0f} MiB that each process has for itself"
            said.append(f"copied for {way}, {why}: {mib}")
        if self.half_s is not None:
            said.append(
                f"to be copied in 16 bits, which hold them, after {self.half_s:.0f} s of generation"
            )
        return "; ".join(said) or AS_FAST

    @contextmanager
    def active(self) -> Iterator[None]:
        """A block in which the layers multiply by copies of what their weights are now."""
        with self._lock:
            if not self._users:
                if self.half_s is not None and self._used_s >= self.half_s:
                    self._halve()
                # All copies first: what fails for want of memory leaves the layers as they are.
                used = self.groups if self.in_use else ()
                together = [self._together(group) for group in used]
                self._placed.enter_context(put_in_place(together))
            self._users += 1
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._used_s += time.perf_counter() - start
                self._users -= 1
                if not self._users:
                    self._placed.close()

    def _halve(self) -> None:
        """Copy all weights in 16 bits, and choose again."""
        self.half_s = None
        if all("16 bits" in self._known(group, ("16 bits",)) for group in self.groups):
            sample = _sample(self.groups)
            products = {
                way: [self._known(group, (way,))[way] for group in sample]
                for way in dict.fromkeys((*self.chosen, "16 bits"))
            }
            self.chosen = tuple(_fastest(sample, products, rows) for rows in ROWS)
        for weights in self._weights.values():
            for way in set(weights.products) - set(self.chosen):
                del weights.products[way]

    def _known(self, group: Group, ways: Sequence[str]) -> dict[str, Product]:
        """The group's products in these ways, as far as it has them."""
        known = self._weights.get(group)
        both = [part for layer in group for part in (layer.weight, layer.bias)]
        sources = tuple(part for part in both if part is not None)
        versions: tuple[int, ...] = tuple(part._version for part in sources)
        same = known is not None and all(map(_is, known.sources, sources))
        if known is None or not same or known.versions != versions:
            known = self._weights[group] = Weights(sources, versions, {})
        for way in ways:
            if way not in known.products and (product := MAKERS[way](group)) is not None:
                known.products[way] = product
        return known.products

    def _together(self, group: Group) -> Together:
        """Layers that multiply in the way that is fastest for the rows that come."""
        copies = [way for way in dict.fromkeys(self.chosen) if way != "torch"]
        products, size = self._known(group, copies), inputs_of(group[0])
        table = [None, *(products.get(self.chosen[n]) for n in NEAREST)]
        choice: Choice = lambda texts: table[min(texts.numel() // size, ROWS[-1])]  # noqa: E731
        return Together(group, choice)


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
    if wanted <= FEW:
        return "not copied: they are few"
    memory, short = psutil.virtual_memory(), any(is_widened(x.weight.dtype) for x in layers)
    # Answers in 16 bits must depend neither on what else is in memory nor on measurements.
    room, whose = (memory.total, "the machine's") if short else (memory.available, "the free")
    if wanted > MEMORY_SHARE * room:
        size = f"{wanted / 2**30:.1f} GiB"
        return f"not copied: {size} would be more than an eighth of {whose} memory"
    groups = groups_of(model, layers)
    if short:
        return PackedWeights(groups, ("16 bits",) * len(ROWS))
    chosen: tuple[str, ...] = ("torch",) * len(ROWS)
    if wanted >= LEAST:
        sample = _sample(groups)
        products = {"torch": list(map(own, sample)), "oneDNN": list(map(reordered, sample))}
        chosen = tuple(_fastest(sample, products, rows) for rows in ROWS)
    half_s = _cost_of_halves(groups, chosen)
    if half_s is None and set(chosen) == {"torch"}:
        return AS_FAST if wanted >= LEAST else "not copied: they are few"
    if half_s is not None and wanted < LEAST:
        half_s = max(half_s, PATIENCE_S)
    return PackedWeights(groups, chosen, half_s)


def _cost_of_halves(groups: Sequence[Group], chosen: Sequence[str]) -> float | None:
    """Seconds that copies in 16 bits would take; None if one group's is none or no faster."""
    small = [group for group in groups if _bytes(group) <= TRIAL]
    trial = max(small, key=_bytes, default=groups[0])
    start = time.perf_counter()
    product = in_half(trial)
    taken = time.perf_counter() - start
    if product is None:
        return None
    now = own(trial) if chosen[1] == "torch" else reordered(trial)
    products = {chosen[1]: [now], "16 bits": [product]}
    if _fastest([trial], products, ROWS[1], turns=20) != "16 bits":
        return None
    return taken * sum(map(_bytes, groups)) / _bytes(trial)


def _bytes(group: Group) -> int:
    return sum(int(layer.weight.nbytes) for layer in group)


def _sample(groups: Sequence[Group]) -> list[Group]:
    sample: list[Group] = []
    for group in groups:
        if sum(map(_bytes, sample)) < SAMPLE:
            sample.append(group)
    return sample


def _fastest(
    groups: Sequence[Group], products: dict[str, list[Product]], rows: int, turns: int = 3
) -> str:
    """The way in which the groups' products of so many rows take least, at the best of the turns.

    The first way stays unless another is clearly faster.
    """
    texts = [torch.ones(1, rows, inputs_of(x[0]), dtype=x[0].weight.dtype) for x in groups]
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
