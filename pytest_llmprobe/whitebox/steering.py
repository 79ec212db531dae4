"""Attention steering (GUIDE, arXiv 2409.19001): add Delta to the scores of chosen keys.

In every chosen layer, at every head and query, the odds of these keys against all others are
multiplied by e^Delta. Delta = 0 leaves the very same computation; a negative Delta suppresses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias

import torch

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.generation import LARGEST_DELTA, Phase
from pytest_llmprobe.whitebox.attention import Call, Tap, tapped
from pytest_llmprobe.whitebox.spans import SpannedPrompt
from pytest_llmprobe.whitebox.steerability import Steerability, bare, check_steerable

Layers: TypeAlias = Literal["all", "first", "last"] | Sequence[int]


class _Keys(NamedTuple):
    """What is added to the scores of which keys: (B, P), 0 before ``first`` and from ``end`` on."""

    bias: torch.Tensor
    first: int
    end: int


class Steering(Tap):
    """Biases the keys of batches that transformers places; none before it is told which.

    It does so in layers by number, in phase ``all`` or, in ``prefill``, for prompts' tokens alone.
    """

    def __init__(self, layers: frozenset[int], phase: Phase) -> None:
        super().__init__()
        self.layers, self.phase = layers, phase
        self._keys: _Keys | None = None
        self._reached: dict[int, torch.Tensor] = {}
        self._made: dict[tuple[int, ...], tuple[torch.Tensor | None, torch.Tensor | None]] = {}
        self._last_layer = -1

    def set_batch(self, bias: torch.Tensor) -> None:
        """For ``generate``, or a forward pass without a cache, of left-padded prompts.

        The bias (B, P) is for all their columns; later ones get none. In a pass of n B rows (beams,
        several samples) each row of it counts n times.
        """
        columns = bias.ne(0).any(0).nonzero().flatten().tolist()
        first, end = (columns[0], columns[-1] + 1) if columns else (0, 0)
        self._keys = _Keys(bias, first, end)
        self._reached.clear()
        self.forget()

    def reach(self) -> list[tuple[int, ...]]:
        """For each row of ``set_batch`` the steered layers whose last prompt token sees its keys.

        The others keep a window that has moved on; there the row is not steered.
        """
        rows = 0 if self._keys is None else len(self._keys.bias)
        seen = {layer: reached.tolist() for layer, reached in sorted(self._reached.items())}
        return [tuple(layer for layer in seen if seen[layer][row]) for row in range(rows)]

    def mask(self, call: Call) -> torch.Tensor | None:
        """The mask with the bias of these keys, made once for all layers that share a mask."""
        if self._keys is None or call.layer not in self.layers:
            return call.mask
        if call.layer <= self._last_layer:
            self.forget()  # a new pass
        self._last_layer = call.layer
        self._note_reach(call, self._keys)
        shape = (*call.query.shape, call.key.shape[2], call.first_key, call.first_query)
        made = self._made.get((id(call.mask), *shape))
        if made is None:
            bias = _bias(self._keys, self.phase, call)
            # An entry keeps its mask, so that no other one gets the same id.
            made = call.mask, call.mask if bias is None else call.biased(bias)
            self._made[(id(call.mask), *shape)] = made
        return made[1]

    def forget(self) -> None:
        """Free the masks of the last pass."""
        self._made.clear()

    def _note_reach(self, call: Call, keys: _Keys) -> None:
        at = keys.bias.shape[1] - 1 - call.first_query
        if not 0 <= at < call.query.shape[2]:
            return
        scores = call.biased(call.query.new_zeros(1, 1, 1, call.key.shape[2]), at, 1)
        sees = scores > torch.finfo(scores.dtype).min / 2
        if len(sees) > 1:
            sees = sees[:: _times(keys, call)]
        chosen = _columns(keys, call).ne(0)
        self._reached[call.layer] = (sees[:, 0, 0].expand(chosen.shape) & chosen).any(-1)


def _bias(keys: _Keys, phase: Phase, call: Call) -> torch.Tensor | None:
    """Broadcasts to (B, 1, T, S); None where nothing is biased."""
    first, count = call.first_key, call.query.shape[2]
    steered = count if phase == "all" else keys.bias.shape[1] - call.first_query
    if steered <= 0 or max(keys.first, first) >= min(keys.end, first + call.key.shape[2]):
        return None
    bias = _columns(keys, call).repeat_interleave(_times(keys, call), 0)[:, None, None]
    if steered >= count:
        return bias
    return bias * (torch.arange(count, device=bias.device) < steered).to(bias)[:, None]


def _times(keys: _Keys, call: Call) -> int:
    """How many rows of the pass each row of the bias is for."""
    times, rest = divmod(call.query.shape[0], len(keys.bias))
    if rest:
        raise SettingsError(
            f"a pass of {call.query.shape[0]} rows is steered for {len(keys.bias)}; "
            "give a bias for each row"
        )
    return times


def _columns(keys: _Keys, call: Call) -> torch.Tensor:
    """The bias (R, S) of the keys that the layer has, in the dtype of its scores."""
    first = call.first_key
    bias = call.query.new_zeros(len(keys.bias), call.key.shape[2])
    own = keys.bias[:, first : first + bias.shape[1]]
    bias[:, : own.shape[1]] = own.to(bias)
    return bias


@contextmanager
def steer(
    model: Any,
    prompts: SpannedPrompt | Sequence[SpannedPrompt] | None = None,
    *,
    delta: float | Sequence[float] | None = None,
    odds: float | Sequence[float] | None = None,
    layers: Layers = "all",
    phase: Phase = "prefill",
) -> Iterator[Steering]:
    """Steer a model's attention within a ``with`` block, in this thread only.

    Blocks may be nested; on one model their biases add.

    Args:
        model: A LoadedModel or a transformers model.
        prompts: The rows of the batches in the block, padded on the left, with their spans; None
            to say it later, by ``set_batch`` of what is yielded.
        delta: Delta, one for all rows or one for each.
        odds: In its place the factor e^Delta of the odds.
        layers: ``all`` that can be steered, the ``first`` or ``last`` of them, or numbers.
        phase: ``prefill``, as in the code of the GUIDE paper: decoded tokens attend as ever; or
            ``all``: they are steered, too.

    Raises:
        ModelError: The model cannot be steered; says why.
        SettingsError: An argument is out of range.
    """
    if phase not in ("all", "prefill"):
        raise SettingsError(f"phase={phase!r}: give 'all' or 'prefill'")
    steering = Steering(chosen_layers(check_steerable(model), layers), phase)
    if prompts is not None:
        rows = [prompts] if isinstance(prompts, SpannedPrompt) else prompts
        deltas = _deltas(delta, odds, len(rows))
        biases = [row.bias(value) for row, value in zip(rows, deltas, strict=True)]
        steering.set_batch(left_padded(biases))
    elif delta is not None or odds is not None:
        raise SettingsError("delta and odds need the prompts that they are for")
    try:
        with tapped(bare(model), steering):
            yield steering
    finally:
        steering.forget()


def left_padded(biases: Sequence[Sequence[float]], width: int | None = None) -> torch.Tensor:
    """One row for each prompt's ``SpannedPrompt.bias``: (B, width), zeros on the left."""
    columns = max(map(len, biases)) if width is None else width
    padded = torch.zeros(len(biases), columns)
    for row, bias in enumerate(biases):
        padded[row, columns - len(bias) :] = torch.tensor(bias)
    return padded


def delta_of_odds(factor: float) -> float:
    """The Delta that multiplies the odds of the chosen keys by ``factor``.

    Raises:
        SettingsError: The factor is not above 0.
    """
    if not (factor > 0 and math.isfinite(factor)):
        raise SettingsError(f"odds={factor!r}: it must be a number above 0; 1 changes nothing")
    return math.log(factor)


def _deltas(
    delta: float | Sequence[float] | None, odds: float | Sequence[float] | None, rows: int
) -> list[float]:
    given = odds if delta is None else delta
    if given is None or (delta is not None and odds is not None):
        raise SettingsError("steering needs either delta or odds")
    deltas = list(given) if isinstance(given, Sequence) else [given] * rows
    if odds is not None:
        deltas = [delta_of_odds(factor) for factor in deltas]
    if len(deltas) != rows:
        raise SettingsError(f"{len(deltas)} values of delta for {rows} prompts; give one for each")
    if strange := [value for value in deltas if not abs(value) <= LARGEST_DELTA]:
        raise SettingsError(
            f"delta={strange[0]!r}: it must lie between -{LARGEST_DELTA} and {LARGEST_DELTA}"
        )
    return deltas


def chosen_layers(found: Steerability, layers: Layers) -> frozenset[int]:
    """Numbers of the layers to steer.

    Raises:
        SettingsError: There is no such layer, or it cannot be steered.
    """
    if isinstance(layers, str):
        named = {"all": found.layers, "first": found.layers[:1], "last": found.layers[-1:]}
        if layers not in named:
            raise SettingsError(
                f"layers={layers!r}: give 'all', 'first', 'last' or numbers of layers"
            )
        return frozenset(named[layers])
    if strange := sorted(set(layers) - set(found.layers)):
        raise SettingsError(
            f"layer {strange[0]} cannot be steered; of this model's {found.layer_count} layers "
            f"these can: {', '.join(map(str, found.layers))}"
        )
    return frozenset(layers)
