"""What steering adds to the scores of a batch's cached keys, told to the attention pass by pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.whitebox.steering import Steering


class KeyBias:
    """The bias of every column of a cache.

    Args:
        steering: Active while the passes run; None: the batch is not steered, and nothing is done.
        rows: The batch.
        places: First dimension of the cache: the number of rows, or 1 if one sequence holds all of
            them, where the rows that see a column agree on its bias.
        capacity: Columns, at least until every prompt is in; later ones have no bias.
    """

    def __init__(
        self, steering: Steering | None, rows: Sequence[Row], places: int, capacity: int
    ) -> None:
        self._steering = steering
        if steering is not None:
            self._biases = [() if row.steering is None else row.steering.bias for row in rows]
            self._bias = torch.zeros(places, capacity)
            self._asked = torch.zeros(places, capacity, dtype=torch.bool)

    def enter(self, row: int, start: int, count: int, column: int, place: int = 0) -> None:
        """Put so many of a row's tokens, from position ``start`` on, into columns of the cache."""
        if self._steering is None:
            return
        bias = self._biases[row][start : start + count]  # of the prompt; an answer has none
        if bias:
            self._bias[place, column : column + len(bias)] = torch.tensor(bias)
            self._asked[place, column : column + len(bias)] = True

    def set_pass(self, start: int, end: int, first: int = 0, place: int | None = None) -> None:
        """Before a pass whose queries are the columns from ``start`` to ``end``.

        Args:
            start: The first that is new.
            end: After the last.
            first: The first column that the pass has a key for.
            place: The only one that it computes; None: all.
        """
        if self._steering is not None:
            places = slice(None) if place is None else slice(place, place + 1)
            asked = self._asked[places, start:end]
            self._steering.set_pass(self._bias[places, first:end], prompt_queries=asked)

    def keep(self, places: torch.Tensor) -> None:
        """Forget all other places."""
        if self._steering is not None:
            self._bias, self._asked = self._bias[places.cpu()], self._asked[places.cpu()]
