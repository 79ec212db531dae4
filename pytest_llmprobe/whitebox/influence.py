"""How far a span of a prompt reaches into a model: Influence, attention rollout, raw attention.

Influence is GUIDE's (arXiv 2409.19001), rollout that of arXiv 2005.00928. No attention map is
stored: the recursions need only the product of each map with a vector per span, which the model's
own attention gives, a few queries at a time, if that vector takes the place of the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pytest_llmprobe.case import Prompt, Span
from pytest_llmprobe.errors import ModelError, SettingsError
from pytest_llmprobe.models.context_length import forget_longest
from pytest_llmprobe.models.loading import LoadedModel
from pytest_llmprobe.whitebox.attention import Call, Output, Tap, is_active, own_eager, tapped
from pytest_llmprobe.whitebox.spans import SpannedPrompt, locate
from pytest_llmprobe.whitebox.steerability import bare, check_steerable

Method: TypeAlias = Literal["influence", "heads", "rollout", "attention"]
Norm: TypeAlias = Literal["residual", "upstream"]
Maps: TypeAlias = NDArray[np.float32]

METHODS: tuple[Method, ...] = ("influence", "heads", "rollout", "attention")

CHUNK = 2**20
"""Attention scores (heads times queries times keys) that are computed at once."""

TINY = 1e-30
"""Instead of a zero that something is divided by."""


@dataclass(frozen=True)
class InfluenceMap:
    """The influence of one prompt's span on each of its tokens after each layer.

    Args:
        prompt: Token ids and the span.
        values: (layers + 1, T) float32; first the span itself: 1 on its tokens, else 0.
        method: How it was computed.
    """

    prompt: SpannedPrompt
    values: Maps
    method: Method

    def at_end(self, tokens: int = 10) -> float:
        """Mean over the last tokens after the last layer."""
        return float(self.values[-1, -tokens:].mean())


def influence(
    model: LoadedModel,
    prompt: Prompt,
    span: Span | str,
    *,
    method: Method = "influence",
    norm: Norm = "residual",
) -> InfluenceMap:
    """The influence of a substring of a prompt, in one forward pass.

    Args:
        model: A loaded model; within ``steer`` it is the steered one.
        prompt: The prompt.
        span: The substring.
        method: One of those of ``influence_maps``.
        norm: As there.

    Raises:
        CasesError: The prompt does not hold the span, or holds it more than once.
        RequestError: The span cannot be found among the tokens.
        ModelError: The model has more than steerable attention.
    """
    located = locate(model, prompt, span)
    maps = influence_maps(model, located.ids, [located.positions], methods=[method], norm=norm)
    return InfluenceMap(located, maps[method][0], method)


@torch.inference_mode()
def influence_maps(
    model: Any,
    ids: Sequence[int],
    spans: Sequence[Sequence[int]],
    *,
    methods: Sequence[Method] = ("influence",),
    norm: Norm = "residual",
) -> dict[Method, Maps]:
    """Several measures of several spans of one text, all in one forward pass.

    With A the mean over heads of a layer's attention map, x the residual stream that enters the
    attention block, o what the block adds to it, and |.| the L1 norm over the hidden dimension,
    ``influence`` is I = (|x| I + |o| A I) / (|x| + |o|), from 1 on the span and 0 elsewhere.
    ``heads`` weighs the heads in A by the L2 norms of their outputs. ``rollout`` is
    I = (I + A I) / 2. ``attention`` is each layer's mean attention to the span's tokens.

    Args:
        model: A LoadedModel or a transformers model.
        ids: Token ids of the text: a prompt, or a prompt and its answer.
        spans: Positions of each span's tokens.
        methods: Which measures.
        norm: ``residual``: x as above, as in the paper. ``upstream``: as in its published code, x
            is the normalised input of the attention block one layer below.

    Returns:
        For each method (spans, layers + 1, T); first the spans themselves.

    Raises:
        ModelError: Not every layer has attention, or tokens meet in other ways too.
        SettingsError: Nothing to measure, a method or norm that does not exist, or a position
            outside the text.
    """
    if unknown := sorted(set(methods) - set(METHODS)):
        raise SettingsError(f"unknown method {unknown[0]!r}; known: {', '.join(METHODS)}")
    if norm not in ("residual", "upstream"):
        raise SettingsError(f"norm={norm!r}: give 'residual' or 'upstream'")
    if not (ids and spans and methods):
        raise SettingsError("influence needs a text, a span, which may be empty, and a method")
    seeds = torch.zeros(len(ids), len(spans))
    for number, span in enumerate(spans):
        if strange := [position for position in span if not 0 <= position < len(ids)]:
            raise SettingsError(f"position {strange[0]} is outside a text of {len(ids)} tokens")
        seeds[list(span), number] = 1
    flow = _Flow(seeds.to(bare(model).device), tuple(dict.fromkeys(methods)), norm)
    _pass(bare(model), ids, flow)
    return flow.maps()


def _pass(model: Any, ids: Sequence[int], flow: _Flow) -> None:
    found = check_steerable(model)
    if not found.traceable:
        raise ModelError(
            f"influence is not defined for {type(model).__name__}: {len(found.layers)} of its "
            f"{found.layer_count} layers have attention, and tokens meet in other ways too"
        )
    forget_longest(model)
    few = {"logits_to_keep": 1} if "logits_to_keep" in signature(model.forward).parameters else {}
    with ExitStack() as stack, tapped(model, flow):
        for name in found.modules:
            block, layer = (model.get_submodule(at) for at in (name, name.rpartition(".")[0]))
            hook = layer.register_forward_pre_hook(flow.enter_layer, with_kwargs=True)
            stack.callback(hook.remove)
            hook = block.register_forward_hook(flow.leave_block, with_kwargs=True)
            stack.callback(hook.remove)
        model(torch.tensor([list(ids)], device=model.device), use_cache=False, **few)


class _Flow(Tap):
    """Carries one column for each span and method through the layers."""

    def __init__(self, seeds: torch.Tensor, methods: Sequence[Method], norm: Norm) -> None:
        super().__init__()
        self._methods, self._norm = methods, norm
        self._seeds = seeds
        self._state = dict.fromkeys(methods, seeds)
        self._layers = {method: [seeds.cpu()] for method in methods}
        self._moved: dict[Method, torch.Tensor] = {}
        self._residual: torch.Tensor | None = None
        self._below: torch.Tensor | None = None

    def maps(self) -> dict[Method, Maps]:
        """For each method (spans, layers + 1, T)."""
        return {
            method: torch.stack(states).permute(2, 0, 1).contiguous().numpy()
            for method, states in self._layers.items()
        }

    def run(self, call: Call) -> Output:
        """The layer's output, and with it A I for all columns: both in one pass over the keys."""
        device = call.query.device
        exact = call.query.dtype if call.query.dtype == torch.float64 else torch.float32
        columns = torch.cat([self._state[method].to(device) for method in self._methods], dim=1)
        beside = columns.to(exact).expand(1, call.value.shape[1], *columns.shape)
        value = torch.cat([call.value.to(exact), beside], dim=-1)
        wide = replace(call, query=call.query.to(exact), key=call.key.to(exact), value=value)
        width, (heads, length) = call.value.shape[-1], call.query.shape[1:3]
        output = call.value.new_empty(1, length, heads, width)
        moved = torch.empty_like(columns)
        own_spans = self._seeds.shape[1]
        # Not fewer than a head is wide: each chunk copies the keys for all heads that share them.
        step = max(CHUNK // (heads * call.key.shape[2]), width)
        whole = _by_kernel(wide)
        for first in range(0, length, step):
            if whole is None:
                part, _ = _some_queries(wide, first, step).run()
            else:
                part = whole[:, first : first + step]
            output[:, first : first + step] = part[..., :width]
            shares = part[0, ..., width:]
            mean = shares.mean(1)
            if "heads" in self._methods:
                weights = part[0, ..., :width].norm(dim=-1, keepdim=True)
                at = self._methods.index("heads") * own_spans
                weighted = (weights * shares).sum(1) / weights.sum(1).clamp(min=TINY)
                mean[:, at : at + own_spans] = weighted[:, at : at + own_spans]
            moved[first : first + step] = mean
        self._moved = dict(zip(self._methods, moved.split(own_spans, dim=1), strict=True))
        return output, None

    def enter_layer(self, module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """The residual stream."""
        if is_active(self):
            self._residual = _norm(_states(args, options))

    def leave_block(
        self, module: Any, args: tuple[Any, ...], options: dict[str, Any], output: Any
    ) -> None:
        """The recursions' step, with what the attention block adds."""
        if not is_active(self):
            return
        added = _norm(output[0] if isinstance(output, tuple) else output)
        entered = _norm(_states(args, options))
        kept = self._residual
        if self._norm == "upstream":
            kept, self._below = self._below, entered
        kept = entered if kept is None else kept
        for method in self._methods:
            moved = self._moved[method].to(self._seeds.device)
            self._layers[method].append(self._step(method, kept, added, moved).cpu())

    def _step(
        self, method: Method, kept: torch.Tensor, added: torch.Tensor, moved: torch.Tensor
    ) -> torch.Tensor:
        if method == "attention":
            return moved / self._seeds.sum(0).clamp(min=1)
        state = self._state[method]
        if method == "rollout":
            state = (state + moved) / 2
        else:
            kept, added = kept.to(state.device), added.to(state.device)
            state = (kept * state + added * moved) / (kept + added).clamp(min=TINY)
        self._state[method] = state
        return state


def _by_kernel(call: Call) -> torch.Tensor | None:
    """All queries of a text that sees itself, (1, T, H, D), by torch's kernel; None if it cannot.

    The kernel wants heads of queries and keys as wide as the values: zeros change no score.
    """
    plain = call.mask is None and call.causal and call.query.shape[2] == call.key.shape[2]
    scaled = call.options.get("scaling") is not None
    if not plain or not scaled or call.function is not ALL_ATTENTION_FUNCTIONS["sdpa"]:
        return None
    more = call.value.shape[-1] - call.query.shape[-1]
    if more < 0 or call.query.dtype != torch.float32:
        return None
    query, key = functional.pad(call.query, (0, more)), functional.pad(call.key, (0, more))
    output, _ = replace(call, query=query, key=key, triangular=False).run()
    return output


def _some_queries(call: Call, first: int, count: int) -> Call:
    """A call for some queries, by the eager function: of such calls it is the fastest."""
    query = call.query[:, :, first : first + count]
    zeros = query.new_zeros(1, 1, 1, call.key.shape[2])
    mask = call.biased(zeros, first, query.shape[2])
    function = own_eager(call.module) or call.function
    return replace(call, function=function, query=query, mask=mask, triangular=False)


def _states(args: tuple[Any, ...], options: dict[str, Any]) -> torch.Tensor:
    """The hidden states that a module is given, (1, T, hidden)."""
    states: torch.Tensor = args[0] if args else options["hidden_states"]
    return states


def _norm(states: torch.Tensor) -> torch.Tensor:
    """L1 over the hidden dimension: (T, 1) float32."""
    return states[0].float().abs().sum(-1, keepdim=True)
