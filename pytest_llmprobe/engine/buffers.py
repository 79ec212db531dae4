"""Preallocated keys and values: growing a cache by ``torch.cat`` costs as much as the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    import torch


class BufferLayer(DynamicLayer):
    """A cache layer with room for ``capacity`` tokens, allocated at the first one."""

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity = capacity
        self.length = 0
        self._keys: torch.Tensor | None = None
        self._values: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values (B, H, T, D); returns views of all so far."""
        if self._keys is None or self._values is None:
            self.dtype, self.device = key_states.dtype, key_states.device
            self._keys = _room(key_states, self.capacity)
            self._values = _room(value_states, self.capacity)
            self.is_initialized = True
        end = self.length + key_states.shape[-2]
        if end > self.capacity:  # guesses that were wrong have used up the room
            self.capacity = 2 * end
            self._keys = _grown(self._keys, self.length, self.capacity)
            self._values = _grown(self._values, self.length, self.capacity)
        self._keys[..., self.length : end, :] = key_states
        self._values[..., self.length : end, :] = value_states
        self.length = end
        self.keys, self.values = self._keys[..., :end, :], self._values[..., :end, :]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Tokens stored."""
        return self.length

    def put(self, row: int, rows: int, start: int, alone: BufferLayer) -> None:
        """Copy the keys and values of one row, computed alone, to columns from ``start`` on.

        What lies before is zeroed: it is masked, but a NaN in unused memory would come through.
        """
        keys, values = alone.keys, alone.values
        assert keys is not None
        assert values is not None
        if self._keys is None or self._values is None:
            self.dtype, self.device, self.is_initialized = alone.dtype, alone.device, True
            self._keys = _room(keys.expand(rows, -1, -1, -1), self.capacity)
            self._values = _room(values.expand(rows, -1, -1, -1), self.capacity)
        for buffer, states in ((self._keys, keys), (self._values, values)):
            buffer[row, :, :start] = 0
            buffer[row, :, start : start + alone.length] = states[0]
        self.length = start + alone.length

    def select(self, rows: torch.Tensor) -> None:
        """Keep some rows of the batch."""
        assert self._keys is not None
        assert self._values is not None
        self._keys, self._values = self._keys[rows], self._values[rows]
        self.keys = self._keys[..., : self.length, :]
        self.values = self._values[..., : self.length, :]


def _room(states: torch.Tensor, capacity: int) -> torch.Tensor:
    return states.new_empty(*states.shape[:-2], capacity, states.shape[-1])


def _grown(states: torch.Tensor, length: int, capacity: int) -> torch.Tensor:
    room = _room(states, capacity)
    room[..., :length, :] = states[..., :length, :]
    return room


def buffer_layers(model: Any, capacity: int) -> list[BufferLayer]:
    """A buffer for each layer of a model whose layers all keep plain keys and values."""
    return [BufferLayer(capacity) for _ in range(model.config.get_text_config().num_hidden_layers)]
