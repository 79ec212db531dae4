"""Keys and values of a batch under decoding: stored once where prompts share them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import accumulate
from typing import Any, NamedTuple

import torch

from pytest_llmprobe.engine.cascade import Cascade, OwnKeys
from pytest_llmprobe.engine.layer_windows import layer_windows
from pytest_llmprobe.engine.passes import Pass, Shared, SharedKeys
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.engine.prefixes import Node, each_leaf
from pytest_llmprobe.whitebox.attention import tapped

FORWARD_TOKENS = {"cpu": 512}
"""Tokens of prompts in one forward pass: a core is busy with few, other devices want more."""
MANY_TOKENS = 8192

LOGITS, LEAST_SCORED = 2**24, 8
"""Logits that are wanted at once (64 MiB in float32), and tokens of a row that always may be."""

COPIED = 2**20
"""Bytes of a layer's shared keys and values, up to which rows have copies: they are read in each
step, which takes less time than attending to a block more."""


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

    @property
    def guesses(self) -> Sequence[int]:
        """The tokens after the last certain one."""
        return self.tokens[len(self.tokens) - self.scored + 1 :]


class TreeMemory:
    """The keys of a batch: of what prompts share once for all, of the rest for each row.

    What a row is fed at a position takes the place of what it was fed there before, so guesses
    that were wrong need no care.

    Args:
        model: The transformers model.
        tree: The rows' prompts.
        rows: The tree's rows in ``depth_first`` order, all steered alike or not at all.
    """

    def __init__(self, model: Any, tree: Node, rows: Sequence[Row]) -> None:
        self._model, self._tree, self._rows = model, tree, rows
        self._base = [node.end for node, _ in each_leaf(tree)]
        how = rows[0].steering
        self._decoded_too = how is not None and how.phase == "all"
        self._bias: torch.Tensor | None = None
        self._shared: list[SharedKeys] = []
        steered = () if how is None else how.layers
        self._cascade = Cascade(OwnKeys(0, 0), layer_windows(model) or {}, steered)
        self._place = {number: number for number in range(len(rows))}
        self._read_in_vain = 0
        self._unused = torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=model.device)

    def attached(self) -> AbstractContextManager[Any]:
        """A block in which the model attends to what is stored here."""
        return tapped(self._model, self._cascade)

    def most_scored(self, rows: int) -> int:
        """Tokens of a row that may be scored in one step of so many rows."""
        vocabulary: int = self._model.config.get_text_config().vocab_size
        return max(LEAST_SCORED, LOGITS // vocabulary // rows)

    def prefill(
        self, drafts: Sequence[Sequence[int]]
    ) -> Iterator[tuple[list[Segment], torch.Tensor]]:
        """For one row after the other the logits (1 + len(draft), V) from its last prompt token on.

        Yields:
            What some rows were fed last, and their logits one below the other.
        """
        begun = list(self._base)
        self._store_shared()
        chunk: list[Segment] = []
        most = FORWARD_TOKENS.get(self._model.device.type, MANY_TOKENS)
        for number, (row, draft) in enumerate(zip(self._rows, drafts, strict=True)):
            base = begun[number]
            segment = Segment(number, (*row.prompt_ids[base:], *draft), base, 1 + len(draft))
            for piece in self._pieces(segment, most):
                self.feed([piece])
                fed = len(piece.tokens)
                segment = segment._replace(tokens=segment.tokens[fed:], start=segment.start + fed)
            more = [*chunk, segment]
            scored = sum(s.scored for s in more)
            full = max(len(s.tokens) for s in more) * len(more) > most
            if chunk and (full or scored > self.most_scored(1)):
                yield chunk, self.feed(chunk)
                chunk = []
            chunk.append(segment)
        yield chunk, self.feed(chunk)

    def _pieces(self, segment: Segment, most: int) -> Iterator[Segment]:
        """The beginning of a long end of a prompt: who sees what is a mask of its square.

        A whole prompt needs none, since the model's own function serves it.
        """
        rest = len(segment.tokens) - segment.scored
        if segment.start and len(segment.tokens) > most:
            step = max(64, min(most, LOGITS // len(segment.tokens)))
            for first in range(0, rest - step + 1, step):
                tokens = segment.tokens[first : first + step]
                yield Segment(segment.row, tokens, segment.start + first, 0)

    def _store_shared(self) -> None:
        """Compute what rows share, and make room for what is theirs."""
        copies: list[tuple[range, SharedKeys]] = []
        self._store(self._tree, 0, [], copies)
        for rows, keys in copies:
            self._base[rows.start : rows.stop] = [keys.positions.start] * len(rows)
        lengths = [row.length for row in self._rows]
        capacity = max(map(int.__sub__, lengths, self._base))
        self._cascade.own = own = OwnKeys(len(lengths), capacity)
        for rows, keys in copies:
            own.begin(rows, keys)
        if self._rows[0].steering is not None:
            self._bias = self._own_bias(capacity)

    def _store(
        self,
        node: Node,
        first: int,
        above: list[SharedKeys],
        copies: list[tuple[range, SharedKeys]],
    ) -> int:
        """Compute what rows share from row ``first`` on; returns the row after the last.

        Few keys are copied, to nodes below or as ``copies`` to rows: that reads less than it saves.
        """
        keys = None
        if node.tokens:
            count, how = len(node.tokens), self._rows[first].steering
            places = range(node.start, node.end)
            keys = SharedKeys(range(first, first), places)
            if how is not None:
                bias = torch.tensor(how.bias[node.start : node.end], device=self._model.device)
                keys.bias = bias[None, None]
            attended = [Shared(one, 0, count, one.bias, places) for one in above]
            tokens, positions = self._moved(node.tokens, places)
            current = Pass(attended, keys, keys.bias, alone=not above, positions=positions)
            self._cascade.current = current
            self._forward(tokens, positions, 1)
            if above and above[-1].handed_on:
                *above, before = above
                before.put_before(keys)
            more = len(node.leaves) + len(node.children) - 1
            size = max(k.nbytes + v.nbytes for k, v in keys.layers.values())
            keys.handed_on = more * size <= COPIED
            above = [*above, keys]
        end = first + len(node.leaves)
        if keys is not None and keys.handed_on and node.leaves:
            copies.append((range(first, end), keys))
        for child in node.children:
            end = self._store(child, end, above, copies)
        if keys is not None and not keys.handed_on:
            keys.rows = range(first, end)
            self._shared.append(keys)
        return end

    def feed(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Logits (sum of scored, V), segment after segment; rows in ascending order."""
        place = [self._place[segment.row] for segment in segments]
        own = [segment.start - self._base[segment.row] for segment in segments]
        counts = [len(segment.tokens) for segment in segments]
        rows, width = range(place[0], place[-1] + 1), max(counts)
        each = [(n, i) for n, count in enumerate(counts) for i in range(count)]
        ends = list(accumulate(counts))
        so_far = dict(zip(place, own, strict=True))
        tokens, positions, keep, slots, places, columns, before = self._moved(
            [token for segment in segments for token in segment.tokens],
            [segments[n].start + i for n, i in each],
            [i for s, end in zip(segments, ends, strict=True) for i in range(end - s.scored, end)],
            [(place[n] - place[0]) * width + i for n, i in each],
            [place[n] for n, _ in each],
            [own[n] + i for n, i in each],
            [so_far.get(row, 0) for row in rows],
        )
        current = Pass(
            self._above(segments, counts),
            rows=rows,
            width=width,
            positions=positions,
            slots=slots,
            places=places,
            columns=columns,
            before=before,
        )
        if len(segments) == 1 and not segments[0].start:
            bias = None if self._bias is None else self._bias[segments[0].row, None, None, :width]
            self._cascade.current = replace(current, bias=bias, alone=True)
        else:
            most = max(start + count for start, count in zip(own, counts, strict=True))
            plain, visible = self._seen(before, width, most, rows)
            self._cascade.current = replace(current, plain=plain, visible=visible)
        return self._forward(tokens, positions, keep)

    def _seen(
        self, before: torch.Tensor, width: int, columns: int, rows: range
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What each slot sees of its row, which had so many (rows,) tokens before; biased too."""
        device = before.device
        at = before[:, None, None] + torch.arange(width, device=device)[None, :, None]
        hidden = torch.arange(columns, device=device) > at
        plain = torch.zeros(hidden.shape, device=device).masked_fill_(hidden, -torch.inf)
        if self._bias is None:
            return plain, plain
        numbers = sorted(self._place)[rows.start : rows.stop]
        bias = self._bias[numbers, None, :columns]
        if not self._decoded_too:
            prompts = [len(self._rows[n].prompt_ids) - self._base[n] for n in numbers]
            bias = bias * (at < torch.tensor(prompts, device=device)[:, None, None])
        return plain, plain + bias

    def _above(self, segments: Sequence[Segment], counts: Sequence[int]) -> list[Shared]:
        """For each node the tokens of the pass that belong to rows below it."""
        found = []
        ends = [0, *accumulate(counts)]
        for keys in self._shared:
            below = [n for n, segment in enumerate(segments) if segment.row in keys.rows]
            if not below:
                continue
            first, end = ends[below[0]], ends[below[-1] + 1]
            bias = keys.bias
            if bias is not None and not self._decoded_too:
                prompt = [
                    s.start + i < len(self._rows[s.row].prompt_ids)
                    for s in segments[below[0] : below[-1] + 1]
                    for i in range(len(s.tokens))
                ]
                bias = bias * torch.tensor(prompt, device=bias.device)[None, :, None]
            fed = [segments[n] for n in below]
            last = max(s.start + len(s.tokens) for s in fed)
            at = range(min(s.start for s in fed), last)
            found.append(Shared(keys, first, end, bias, at))
        return found

    def drop(self, active: Sequence[int]) -> None:
        """Forget finished rows once reading them has cost as much as copying the others does."""
        self._read_in_vain += len(self._place) - len(active)
        if 0 < len(active) <= self._read_in_vain:
            self._read_in_vain = 0
            (places,) = self._moved([self._place[row] for row in active])
            self._cascade.own.select(places)
            self._place = {row: place for place, row in enumerate(active)}
            self._shared = [
                keys for keys in self._shared if any(row in keys.rows for row in active)
            ]

    def _forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, keep: int | torch.Tensor
    ) -> torch.Tensor:
        logits: torch.Tensor = self._model(
            input_ids=tokens[None],
            attention_mask=self._unused,  # of four dimensions, so that none is made
            position_ids=positions[None],
            use_cache=False,
            logits_to_keep=keep,
        ).logits[0]
        return logits

    def _moved(self, *lists: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """Lists of numbers as tensors on the model's device, in a copy that nobody waits for."""
        together = torch.tensor([number for numbers in lists for number in numbers])
        if self._unused.is_cuda:
            together = together.pin_memory()
        moved = together.to(self._unused.device, non_blocking=True)
        return tuple(torch.split(moved, [len(numbers) for numbers in lists]))

    def _own_bias(self, capacity: int) -> torch.Tensor:
        """(rows, C), what is added to the scores of the rows' own keys; an answer has none."""
        bias = torch.zeros(len(self._rows), capacity, device=self._model.device)
        for number, (row, base) in enumerate(zip(self._rows, self._base, strict=True)):
            assert row.steering is not None
            own = row.steering.bias[base:]
            bias[number, : len(own)] = torch.tensor(own, device=bias.device)
        return bias
