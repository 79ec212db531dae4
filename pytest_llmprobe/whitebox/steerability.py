"""Whether and where a model's attention can be steered: measured on six tokens, never looked up.

Flags of the library are no substitute: a state-space model takes any attention implementation and
has none, and a layer may leave its attention to a kernel that ignores a bias.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any
from weakref import WeakKeyDictionary

import torch

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.loading import LoadedModel
from pytest_llmprobe.whitebox.attention import BASES, Call, Tap, attention_kind, tapped

TOKENS = 6
SPAN = slice(1, 3)
LOG_ODDS = 1e-3
"""Largest deviation from the odds law; 16-bit scores are rounded, there their median counts."""
COARSE_LOG_ODDS = 0.05

LEAK = 1e-5
"""Largest change of logits, relative to the largest, that is rounding; without a leak it is 0."""

FINE = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Steerability:
    """Measured on one model.

    Args:
        layers: Numbers of the layers where a bias of Delta multiplies the odds of its keys by
            e^Delta, in every head and at every query.
        modules: Names of their attention modules.
        layer_count: Layers of the model, of any kind.
        attention_only: Tokens learn of one another through these layers only, so what reaches a
            token can be traced through them.
        reason: Why nothing can be steered, as the end of a sentence; None if something can.
    """

    layers: tuple[int, ...]
    modules: tuple[str, ...]
    layer_count: int
    attention_only: bool
    reason: str | None = None

    @property
    def traceable(self) -> bool:
        """Whether influence is defined: every layer has attention, and tokens meet only there."""
        return self.attention_only and len(self.layers) == self.layer_count


_KNOWN: WeakKeyDictionary[Any, dict[str, Steerability]] = WeakKeyDictionary()


def bare(model: Any) -> Any:
    """The transformers model of a loaded model, or the model itself."""
    return model.model if isinstance(model, LoadedModel) else model


def steerable(model: Any) -> Steerability:
    """Measure once for each model and attention implementation, with five short passes."""
    model = bare(model)
    kind = attention_kind(model)
    known = _KNOWN.setdefault(model, {})
    if kind not in known:
        known[kind] = _measure(model, kind)
    return known[kind]


def check_steerable(model: Any) -> Steerability:
    """As ``steerable``, for a model that must be.

    Raises:
        ModelError: It is not; says why.
    """
    found = steerable(model)
    if found.reason is not None:
        raise ModelError(
            f"the attention of {type(bare(model)).__name__} cannot be steered: {found.reason}"
        )
    return found


@torch.inference_mode()
def _measure(model: Any, kind: str) -> Steerability:
    count = int(model.config.get_text_config(decoder=True).num_hidden_layers)
    if model.config.is_encoder_decoder:
        return _refused(count, "an encoder reads the prompt, and only decoders can be steered")
    if kind not in BASES:
        return _refused(
            count, f"{kind} kernels take no bias; load it with attn_implementation='sdpa'"
        )
    if not model._can_set_attn_implementation():
        return _refused(count, "it does not go through transformers' AttentionInterface")
    words = model.config.get_text_config().vocab_size
    ids = (torch.arange(TOKENS, device=model.device)[None] * 7 + 5) % words
    odds = _Odds()
    try:
        plain = model(ids, use_cache=False).logits
        with tapped(model, Tap()):
            through = model(ids, use_cache=False).logits
        with tapped(model, odds):
            model(ids, use_cache=False)
        alone = _own_tokens_only(model, ids, words)
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        return _refused(count, f"a pass with a bias fails: {error}")
    if not odds.off:
        return _refused(count, "no layer of it has attention (a state-space model?)")
    if not torch.equal(plain, through):
        return _refused(count, "a pass through a registered attention function changes its answers")
    largest = LOG_ODDS if model.dtype in FINE else COARSE_LOG_ODDS
    layers = tuple(layer for layer, off in sorted(odds.off.items()) if off <= largest)
    if not layers:
        off = max(odds.off.values())
        return _refused(count, f"a bias misses the odds that it should give by e^{off:.3g}")
    names = {id(module): name for name, module in model.named_modules()}
    modules = tuple(names[odds.modules[layer]] for layer in layers)
    return Steerability(layers, modules, count, alone and len(layers) == len(odds.off))


def _refused(count: int, reason: str) -> Steerability:
    return Steerability((), (), count, False, reason)


class _Odds(Tap):
    """Compares the odds of a span with and without a bias of 1, on the same queries and keys.

    The model's own function computes them: where values are 1 for the keys of a span and 0 for
    all others, its output is the span's share. A sink takes from both shares alike.
    """

    def __init__(self) -> None:
        super().__init__()
        self.off: dict[int, float] = {}
        self.modules: dict[int, int] = {}

    def mask(self, call: Call) -> torch.Tensor | None:
        span = torch.zeros(call.key.shape[2], dtype=call.query.dtype, device=call.query.device)
        span[SPAN] = 1
        value = torch.zeros_like(call.value)
        value[..., 0], value[..., 1] = span, 1 - span
        shares = []
        for mask in (call.mask, call.biased(span)):
            output, _ = replace(call, value=value, mask=mask).run()
            # Of the queries that see the whole span; of all others the odds are not defined.
            shares.append(output[:, SPAN.stop :, :, :2])
        (before, after), smallest = torch.stack(shares), torch.finfo(span.dtype).tiny
        exact = ((before > smallest) & (after > smallest)).all(-1)
        odds = (after / before)[exact].double().log()
        off = (odds[:, 0] - odds[:, 1] - 1).abs()
        if not len(off):
            off = off.new_tensor([inf])
        typical = off.max() if span.dtype in FINE else off.median()
        self.off[call.layer] = float(typical)
        self.modules[call.layer] = id(call.module)
        return call.mask


class _OwnKeysOnly(Tap):
    """Lets each token attend to itself alone."""

    def mask(self, call: Call) -> torch.Tensor:
        shape = call.query.shape[2], call.key.shape[2]
        mask = call.query.new_full(shape, torch.finfo(call.query.dtype).min)
        return mask.fill_diagonal_(0)[None, None]


def _own_tokens_only(model: Any, ids: torch.Tensor, words: int) -> bool:
    """Whether a change of the first token leaves the others' logits if each attends to itself."""
    changed = ids.clone()
    changed[0, 0] = (changed[0, 0] + 1) % words
    with tapped(model, _OwnKeysOnly()):
        logits = model(torch.cat([ids, changed]), use_cache=False).logits.float()
    difference = (logits[0] - logits[1])[1:].abs().max()
    return bool(difference <= LEAK * logits.abs().max())
