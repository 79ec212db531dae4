"""What the tokens of one forward pass attend to, in layers that see all and that keep a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from pytest_llmprobe.engine.attention_parts import UNSEEN


@dataclass
class SharedKeys:
    """Keys and values of tokens that neighbouring rows share, by layer.

    Args:
        rows: Numbers of these rows.
        positions: Of the tokens in the rows' texts.
        bias: What steering adds to the scores of the keys (1, 1, S), or None.
        layers: Keys and values, both (1, H, S, D).
        handed_on: They are few: who comes below has a copy of them before what is its own.
    """

    rows: range
    positions: range
    bias: torch.Tensor | None = None
    layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    handed_on: bool = False

    def put_before(self, other: SharedKeys) -> None:
        """Begin another's block with this one's keys, whose positions are the ones before."""
        other.positions = range(self.positions.start, other.positions.stop)
        if self.bias is not None and other.bias is not None:
            other.bias = torch.cat([self.bias, other.bias], dim=-1)
        for layer, states in other.layers.items():
            keys, values = map(_after_another, self.layers[layer], states)
            other.layers[layer] = keys, values


def _after_another(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.cat([first, second], dim=2)


class Shared(NamedTuple):
    """Tokens of a pass that attend to a block of shared keys: from ``first`` up to ``end``.

    Their positions are among ``positions``, and ``bias`` is what steering adds, (1, 1 or T, S).
    """

    keys: SharedKeys
    first: int
    end: int
    bias: torch.Tensor | None
    positions: range


class Seen(NamedTuple):
    """Keys of a block that a window shows: from number ``first`` on, with a bias or None."""

    first: int
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
        positions: (T,) each token's position in its text.
        slots: (T,) number of each token's slot: row by row, ``width`` slots each.
        places: (T,) each token's row.
        columns: (T,) where each token is stored in its row.
        before: (rows,) columns that were filled before.
        visible: (rows, width, C) 0 where a slot sees a column of its row, else -inf, plus a bias.
        plain: The same without the bias, for layers that are not steered.
    """

    above: Sequence[Shared] = ()
    store: SharedKeys | None = None
    bias: torch.Tensor | None = None
    alone: bool = False
    rows: range = range(0)
    width: int = 0
    positions: torch.Tensor | None = None
    slots: torch.Tensor | None = None
    places: torch.Tensor | None = None
    columns: torch.Tensor | None = None
    before: torch.Tensor | None = None
    visible: torch.Tensor | None = None
    plain: torch.Tensor | None = None
    _known: dict[object, Seen | torch.Tensor | None] = field(default_factory=dict)

    @property
    def is_step(self) -> bool:
        """Whether each of its rows, with none left out between them, is fed one token."""
        if self.width != 1 or self.plain is None or self.slots is None:
            return False
        return len(self.slots) == len(self.rows)

    def of_shared(self, number: int, window: int | None, steered: bool) -> Seen | None:
        """What its tokens see of a block of ``above``; None: nothing."""
        key = (number, window, steered)
        if key not in self._known:
            self._known[key] = self._seen_of(self.above[number], window, steered)
        found = self._known[key]
        assert not isinstance(found, torch.Tensor)
        return found

    def _seen_of(self, shared: Shared, window: int | None, steered: bool) -> Seen | None:
        bias, keys, at = shared.bias if steered else None, shared.keys.positions, shared.positions
        if window is None or at[-1] - window < keys.start:
            return Seen(0, bias)
        first = max(keys.start, at[0] - window + 1)
        if first >= keys.stop:
            return None
        assert self.positions is not None
        edge = self.positions[shared.first : shared.end, None] - window
        hidden = torch.arange(first, keys.stop, device=edge.device) <= edge
        mask = torch.zeros(hidden.shape, device=edge.device).masked_fill_(hidden, UNSEEN)[None]
        first -= keys.start
        return Seen(first, mask if bias is None else mask + bias[..., first:])

    def of_own(self, window: int | None, steered: bool) -> torch.Tensor:
        """(rows, width, C), as ``visible``."""
        seen = self.visible if steered else self.plain
        assert seen is not None
        if window is None or seen.shape[-1] <= window:
            return seen
        key = (window, steered)
        if key not in self._known:
            assert self.before is not None
            slots = torch.arange(self.width, device=seen.device)[None, :, None]
            edge = self.before[:, None, None] + slots - window
            hidden = torch.arange(seen.shape[-1], device=seen.device) <= edge
            self._known[key] = seen.masked_fill(hidden, UNSEEN)
        found = self._known[key]
        assert isinstance(found, torch.Tensor)
        return found
