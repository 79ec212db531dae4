"""Keys and values of a batch under decoding: stored once where prompts share them.

Two layouts with one interface. ``PackedMemory`` is a single sequence that holds every token once,
with a mask that says which row sees which column; ``PaddedMemory`` is the usual left-padded batch.
Both write into preallocated buffers, because ``torch.cat`` per step costs as much as all else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers.cache_utils import Cache

from pytest_llmprobe.engine.buffers import BufferLayer, buffer_layers
from pytest_llmprobe.engine.key_bias import KeyBias
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.engine.prefixes import Node, depth_first, each_leaf
from pytest_llmprobe.models.capabilities import packed_mask
from pytest_llmprobe.whitebox.steering import Steering

FORWARD_TOKENS = 512
"""Tokens of several rows in one forward pass: the mask grows with their square."""


class Segment(NamedTuple):
    """Tokens that one row is fed in one step.

    Args:
        row: Number of the row in the batch.
        tokens: One token that is certain, then guesses; at the start the prompt's own end.
        start: Position of the first token in the row's text.
        scored: The last so many tokens whose logits are wanted.
    """

    row: int
    tokens: Sequence[int]
    start: int
    scored: int


class PackedMemory:
    """All rows in one sequence; columns of keys are shared wherever the prompts are.

    Args:
        model: The transformers model.
        tree: The rows' prompts.
        rows: How many there are.
        capacity: Columns: all prompts' distinct tokens, all drafts and all new tokens.
        steering: Active while the batch runs, if it is steered.
    """

    def __init__(
        self,
        model: Any,
        tree: Node,
        rows: Sequence[Row],
        capacity: int,
        steering: Steering | None = None,
    ) -> None:
        self._model, self._tree = model, tree
        self._number = {id(row): number for number, row in enumerate(rows)}
        self._layers = buffer_layers(model, capacity)
        self._cache = Cache(layers=[*self._layers])
        self._visible = torch.zeros(len(rows), capacity, dtype=torch.bool, device=model.device)
        self._bias = KeyBias(steering, rows, 1, capacity)
        self._length = 0
        self._last: dict[int, int] = {}

    def prefill(self, drafts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """For each row the logits (1 + len(draft), V) from its last prompt token on."""
        logits: dict[int, torch.Tensor] = {}
        self._enter(self._tree)
        chunk: list[Segment] = []
        for node, row in each_leaf(self._tree):
            number = self._number[id(row)]
            tokens = (*row.prompt_ids[node.end :], *drafts[number])
            if chunk and sum(len(s.tokens) for s in chunk) + len(tokens) > FORWARD_TOKENS:
                self._feed_into(chunk, logits)
                chunk = []
            chunk.append(Segment(number, tokens, node.end, 1 + len(drafts[number])))
        self._feed_into(chunk, logits)
        return [logits[number] for number in range(len(drafts))]

    def _enter(self, node: Node) -> None:
        """Store what rows share; a row's own tokens come later, as many rows as fit in a pass."""
        if node.tokens:
            below = [self._number[id(row)] for row in depth_first(node)]
            self._share(node, below)
        for child in node.children:
            self._enter(child)

    def _share(self, node: Node, below: Sequence[int]) -> None:
        """Store a node's tokens, which every row below it sees."""
        count, start = len(node.tokens), self._length
        mask = None
        if start:
            sees = self._visible[below[0], :start].expand(count, start)
            mask = torch.cat([sees, _causal(count, sees.device)], dim=1)
        self._bias.enter(below[0], node.start, count, start)
        self._bias.set_pass(start, start + count)
        self._forward(node.tokens, range(node.start, node.end), mask, keep=1)
        self._visible[torch.tensor(below), start : self._length] = True

    def _feed_into(self, segments: Sequence[Segment], logits: dict[int, torch.Tensor]) -> None:
        scores = self.feed(segments)
        parts = torch.split(scores, [segment.scored for segment in segments])
        logits.update(zip((segment.row for segment in segments), parts, strict=True))

    def feed(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Logits (sum of scored, V), segment after segment."""
        device, start = self._visible.device, self._length
        self._visible = _widened(self._visible, start + sum(len(s.tokens) for s in segments))
        lengths = torch.tensor([len(segment.tokens) for segment in segments], device=device)
        rows = torch.tensor([segment.row for segment in segments], device=device)
        owner = torch.arange(len(segments), device=device).repeat_interleave(lengths)
        same = owner[:, None] == owner[None, :]
        own = same if len(owner) == len(segments) else same.tril()
        mask = torch.cat([self._visible[rows[owner], :start], own], dim=1)
        keep: list[int] = []
        column = start
        for segment in segments:
            end = column + len(segment.tokens)
            self._bias.enter(segment.row, segment.start, len(segment.tokens), column)
            keep += range(end - segment.scored - start, end - start)
            self._visible[segment.row, column:end] = True
            self._last[segment.row] = end
            column = end
        tokens = [token for segment in segments for token in segment.tokens]
        positions = [s.start + i for s in segments for i in range(len(s.tokens))]
        self._bias.set_pass(start, column)
        return self._forward(tokens, positions, mask, torch.tensor(keep, device=device))

    def _forward(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        mask: torch.Tensor | None,
        keep: int | torch.Tensor,
    ) -> torch.Tensor:
        device = self._visible.device
        output = self._model(
            input_ids=torch.tensor([list(tokens)], device=device),
            attention_mask=None if mask is None else packed_mask(self._model, mask),
            position_ids=torch.tensor([list(positions)], device=device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        self._length += len(tokens)
        logits: torch.Tensor = output.logits[0]
        return logits

    def reject(self, row: int, count: int) -> None:
        """Hide the last tokens that a row was fed: guesses that the model did not make."""
        if count:
            self._visible[row, self._last[row] - count : self._last[row]] = False

    def drop(self, active: Sequence[int]) -> None:
        """Rows that are not fed cost nothing, so there is nothing to drop."""


class PaddedMemory:
    """A left-padded batch; rejected guesses leave masked holes.

    Args:
        model: The transformers model.
        rows: The rows.
        pad_id: Fills what is masked.
        capacity: Columns: the longest prompt with its draft, and all steps' widths.
        steering: Active while the batch runs, if it is steered.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[Row],
        pad_id: int,
        capacity: int,
        steering: Steering | None = None,
    ) -> None:
        self._model, self._rows, self._pad = model, rows, pad_id
        self._layers = buffer_layers(model, capacity)
        self._cache = Cache(layers=[*self._layers])
        device = model.device
        self._mask = torch.zeros(len(rows), capacity, dtype=torch.long, device=device)
        self._bias = KeyBias(steering, rows, len(rows), capacity)
        self._place = {number: number for number in range(len(rows))}
        self._length = 0

    def prefill(self, drafts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """For each row the logits (1 + len(draft), V) from its last prompt token on."""
        segments = [
            Segment(number, (*row.prompt_ids, *draft), 0, 1 + len(draft))
            for number, (row, draft) in enumerate(zip(self._rows, drafts, strict=True))
        ]
        if self._model.device.type == "cpu":
            # A core is busy with one prompt already; a batch would only compute its padding.
            self._length = max(len(segment.tokens) for segment in segments)
            return self._prefill_one_by_one(segments)
        return list(torch.split(self.feed(segments), [segment.scored for segment in segments]))

    def _prefill_one_by_one(self, segments: Sequence[Segment]) -> list[torch.Tensor]:
        """Equal neighbours, which the planner puts side by side, are computed once."""
        found: list[torch.Tensor] = []
        layers: list[BufferLayer] = []
        before: object = None
        for segment in segments:
            start = self._length - len(segment.tokens)
            self._bias.enter(segment.row, 0, len(segment.tokens), start, place=segment.row)
            asked = (self._rows[segment.row].path, segment.tokens)
            if asked == before:
                found.append(found[-1])
            else:
                layers = buffer_layers(self._model, len(segment.tokens))
                found.append(self._prefill_alone(segment, start, layers))
                before = asked
            for layer, alone in zip(self._layers, layers, strict=True):
                layer.put(segment.row, len(self._rows), start, alone)
            self._mask[segment.row, start : self._length] = 1
        return found

    def _prefill_alone(
        self, segment: Segment, start: int, layers: Sequence[BufferLayer]
    ) -> torch.Tensor:
        count = len(segment.tokens)
        self._bias.set_pass(start, self._length, first=start, place=segment.row)
        logits: torch.Tensor = self._model(
            input_ids=torch.tensor([segment.tokens]),
            position_ids=torch.arange(count)[None],
            past_key_values=Cache(layers=[*layers]),
            use_cache=True,
            logits_to_keep=segment.scored,
        ).logits[0]
        return logits

    def feed(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Logits (sum of scored, V), segment after segment; every row in memory has a segment."""
        width, start = max(len(segment.tokens) for segment in segments), self._length
        ids = torch.full((len(self._place), width), self._pad)
        positions = torch.zeros_like(ids)
        filled = torch.zeros_like(ids)
        for segment in segments:
            place, count = self._place[segment.row], len(segment.tokens)
            ids[place, width - count :] = torch.tensor(segment.tokens)
            positions[place, width - count :] = torch.arange(segment.start, segment.start + count)
            filled[place, width - count :] = 1
            self._bias.enter(segment.row, segment.start, count, start + width - count, place)
        device = self._mask.device
        end = start + width
        self._mask = _widened(self._mask, end)
        self._mask[:, start:end] = filled.to(device)
        scored = max(segment.scored for segment in segments)
        self._bias.set_pass(start, end)
        logits = self._model(
            input_ids=ids.to(device),
            attention_mask=self._mask[:, :end],
            position_ids=positions.to(device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=scored,
        ).logits
        self._length = end
        return torch.cat([logits[self._place[s.row], scored - s.scored :] for s in segments])

    def reject(self, row: int, count: int) -> None:
        """Hide the last tokens that a row was fed: guesses that the model did not make."""
        if count:
            self._mask[self._place[row], self._length - count : self._length] = 0

    def drop(self, active: Sequence[int]) -> None:
        """Forget finished rows once they are half of the batch; copying costs too."""
        if 0 < 2 * len(active) <= len(self._place):
            kept = torch.tensor([self._place[row] for row in active], device=self._mask.device)
            for layer in self._layers:
                layer.select(kept)
            self._bias.keep(kept)
            self._mask = self._mask[kept]
            self._place = {row: place for place, row in enumerate(active)}


def _widened(mask: torch.Tensor, columns: int) -> torch.Tensor:
    if columns <= mask.shape[1]:
        return mask
    return torch.cat([mask, mask.new_zeros(mask.shape[0], 2 * columns - mask.shape[1])], dim=1)


def _causal(count: int, device: torch.device) -> torch.Tensor:
    return torch.ones(count, count, dtype=torch.bool, device=device).tril()
