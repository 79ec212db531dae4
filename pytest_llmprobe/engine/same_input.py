"""Linear layers that are given the same input one after the other: one product serves them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch

from pytest_llmprobe.engine.linear_products import Product, outputs_of, own

Group: TypeAlias = tuple[Any, ...]
"""Layers in the order in which they are called; mostly one."""

Choice: TypeAlias = Callable[[torch.Tensor], Product | None]
"""Of texts: the product that a group's layers share there, or None for each layer's own."""

TRIED = 3
"""Tokens of the text with which a model shows which inputs are the same."""


class Together:
    """The ``forward`` functions of a group's layers: the first one computes for all.

    A layer that is called with another input than the first one, or where gradients may follow,
    computes for itself. Threads may call at once: who finds another's outputs computes its own.
    """

    def __init__(self, group: Group, choice: Choice) -> None:
        self._group = group
        self._own: list[Product] = [own([layer]) for layer in group]
        self._sizes = [outputs_of(layer) for layer in group]
        self._choice = choice
        self._last: tuple[torch.Tensor | None, Sequence[torch.Tensor]] = (None, ())

    def first(self, input: torch.Tensor) -> torch.Tensor:
        """The first layer's outputs."""
        product = self._choice(input) if torch.is_inference_mode_enabled() else None
        if product is None or len(self._own) == 1:
            outputs: torch.Tensor = (product or self._own[0])(input)
            return outputs
        parts: Sequence[torch.Tensor] = product(input).split(self._sizes, dim=-1)
        self._last = (input, parts)
        return parts[0]

    def later(self, number: int) -> Product:
        """The ``forward`` of layer ``number``, which is not the first."""
        is_last = number == len(self._own) - 1

        def forward(input: torch.Tensor) -> torch.Tensor:
            of, parts = self._last
            if input is not of:
                return self._own[number](input)
            if is_last:
                self._last = (None, ())
            return parts[number]

        return forward

    def forwards(self) -> list[tuple[Any, Product]]:
        """Each layer with what is put in its ``forward``'s place."""
        each = [self.first, *(self.later(number) for number in range(1, len(self._group)))]
        return list(zip(self._group, each, strict=True))


@contextmanager
def put_in_place(groups: Sequence[Together]) -> Iterator[None]:
    """A block in which the groups' layers compute together."""
    each = [put for together in groups for put in together.forwards()]
    for layer, forward in each:
        layer.forward = forward
    try:
        yield
    finally:
        for layer, _ in each:
            del layer.forward


def groups_of(model: Any, layers: Sequence[Any]) -> list[Group]:
    """The layers of a transformers model in groups, as a short text runs through them.

    A model that cannot do with outputs side by side in memory has groups of one.
    """
    alone: list[Group] = [(layer,) for layer in layers]
    found = _found(model, layers)
    if len(found) == len(alone):
        return alone
    own_logits = _logits(model)
    try:
        with put_in_place([Together(group, _always(own(group))) for group in found]):
            logits = _logits(model)
    except RuntimeError:  # a view of what is not contiguous
        return alone
    return found if torch.allclose(logits, own_logits, rtol=1e-4, atol=1e-4) else alone


def _always(product: Product) -> Choice:
    return lambda _: product


def _found(model: Any, layers: Sequence[Any]) -> list[Group]:
    calls: list[tuple[Any, torch.Tensor | None]] = []

    def noted(layer: Any, given: tuple[Any, ...]) -> None:
        calls.append((layer, given[0] if given else None))

    hooks = [layer.register_forward_pre_hook(noted) for layer in layers]
    try:
        _logits(model)
    finally:
        for hook in hooks:
            hook.remove()
    groups: list[list[Any]] = []
    before: torch.Tensor | None = None
    for layer, given in calls:
        same = given is not None and given is before
        if same and type(layer) is type(groups[-1][0]):
            groups[-1].append(layer)
        else:
            groups.append([layer])
        before = given
    often = [layer for layer, _ in calls]
    kept = [tuple(group) for group in groups if all(often.count(one) == 1 for one in group)]
    placed = {layer for group in kept for layer in group}
    return [*kept, *((layer,) for layer in layers if layer not in placed)]


@torch.inference_mode()
def _logits(model: Any) -> torch.Tensor:
    ids = torch.arange(TRIED, device=model.device)[None]
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits
