"""Which requests share a forward batch: a pure function of configs, token ids and steering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeAlias

from pytest_llmprobe.generation import GenerateConfig, Phase

TOKEN_BUDGET = 8192
"""Rows times (longest prompt + new tokens) of a batch: more is not faster on one CPU core."""

WHOLE_UNIT = 2**62
"""Token budget of what plans its own batches."""

SHARED_TOKENS = 64
"""Common tokens from which on a prefix is worth storing once."""

MOST_OWN = 8
"""Times the common tokens that the longest prompt may have: a prompt on its own is faster."""

PACKED_ROWS = 64
"""Rows of a batch with shared prefixes at most: more are not faster on one CPU core."""

UNEVEN = 4
"""Times the budget that rows may take if each had as many tokens of its own as the longest."""


@dataclass(frozen=True)
class Room:
    """What a batch may hold: ``token_budget`` and ``packed_rows`` of ``plan``."""

    tokens: int = TOKEN_BUDGET
    rows: int = PACKED_ROWS


NO_LIMITS: Mapping[int, int] = {}

Path: TypeAlias = tuple[Any, ...]
"""For each token of a prompt what its keys and values depend on, besides the tokens before it."""


@dataclass(frozen=True)
class RowSteering:
    """How one row is steered; Delta 0 is no steering at all.

    Args:
        bias: What is added to the scores of each token of the prompt.
        layers: Numbers of the layers, ascending.
        phase: As of ``Steer``.
        texts: What the biased tokens say, for each span.
    """

    bias: tuple[float, ...]
    layers: tuple[int, ...]
    phase: Phase
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One request as the planner and a backend see it.

    Args:
        index: Its place among the requests.
        prompt_ids: Token ids of the prompt; for a server, the bytes that say it, as a bytes object.
        config: How to generate.
        seed: Seed of its sampling.
        draft: A guess of the answer, as text or token ids.
        steering: How to steer it, or None.
        thinking: Tokens that a thought may take before the answer; 0 if none is expected.
        continuation: Token ids whose likelihood after the prompt is wanted, where nothing is to be
            generated; for a server, the bytes that say them.
        alone: The continuation is a whole text: the prompt says nothing.
    """

    index: int
    prompt_ids: tuple[int, ...]
    config: GenerateConfig
    seed: int = 0
    draft: str | tuple[int, ...] | None = None
    steering: RowSteering | None = None
    thinking: int = 0
    continuation: tuple[int, ...] = ()
    alone: bool = False

    @property
    def kind(self) -> tuple[object, ...]:
        """What rows of a batch have in common, besides their config where that must be one."""
        how = self.steering
        scored = ("scored",) if self.continuation else ()
        return scored if how is None else (*scored, how.layers, how.phase)

    @property
    def length(self) -> int:
        """Tokens of prompt and answer at most."""
        return len(self.prompt_ids) + self.room

    @property
    def room(self) -> int:
        """Tokens that may be generated, thought and answer, or that are given."""
        return len(self.continuation) or self.thinking + self.config.max_new_tokens

    @cached_property
    def path(self) -> Path:
        """Two rows of one kind may share keys and values as far as their paths agree."""
        if self.steering is None:
            return self.prompt_ids
        pairs: dict[tuple[int, float], tuple[int, float]] = {}  # a long text has few different ones
        both = zip(self.prompt_ids, self.steering.bias, strict=True)
        return tuple(pairs.setdefault(pair, pair) for pair in both)


def plan(
    rows: Sequence[Row],
    batch_size: int | None = None,
    token_budget: int = TOKEN_BUDGET,
    share_prefixes: bool = False,
    limits: Mapping[int, int] = NO_LIMITS,
    packed_rows: int = PACKED_ROWS,
) -> list[list[Row]]:
    """Cut rows into batches with one choice of steered layers and phase each.

    Rows whose prompts begin with the same tokens under the same bias go together if the backend
    stores shared prefixes once, whatever their configs, and several such families where they fit;
    else a batch has one config. All others are sorted by length, longest first, which keeps padding
    small, equal prompts side by side. Ties keep the order of the requests, so the plan of a work
    unit is the same in every process.

    Args:
        rows: What is to be generated.
        batch_size: Rows in a batch, or None to fill ``token_budget``.
        token_budget: Padded tokens of a batch at most, or, with a shared prefix, tokens that
            the other rows add to the first one's; one row may exceed it.
        share_prefixes: Whether the backend stores a shared prefix once and takes rows of
            different configs.
        limits: For a length of prompt and answer the most rows of a batch that has a row so long.
        packed_rows: Most rows of a batch with shared prefixes, if there is no ``batch_size``.
    """
    by_kind: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        kind = row.kind if share_prefixes else (row.config, *row.kind)
        by_kind.setdefault(kind, []).append(row)
    batches: list[list[Row]] = []
    most = batch_size or packed_rows
    for alone in by_kind.values():
        if share_prefixes:
            families = sorted(_families(alone), key=lambda family: min(row.path for row in family))
            alone = [family[0] for family in families if len(family) == 1]
            several = (family for family in families if len(family) > 1)
            packed = [b for f in several for b in _packed(f, most, token_budget, limits)]
            batches += _joined(packed, most, token_budget, limits)
        batches += _padded(alone, batch_size, token_budget, limits)
    return batches


def _most(length: int, rows: int, limits: Mapping[int, int]) -> int:
    """Rows of a batch whose longest has so many tokens; ``rows`` if nothing else is known."""
    return min([rows, *(limit for at, limit in limits.items() if length >= at)])


def common_prefix(a: Sequence[object], b: Sequence[object]) -> int:
    """Number of leading tokens that two prompts, or their paths, share."""
    length = min(len(a), len(b))
    if a[:length] == b[:length]:
        return length
    low, high = 0, length  # a[:low] agrees, a[:high] does not
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _families(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows with the same first ``SHARED_TOKENS`` tokens; a shorter prompt is on its own."""
    families: dict[Path, list[Row]] = {}
    for row in rows:
        head = row.path[:SHARED_TOKENS]
        own = len(row.path) <= SHARED_TOKENS
        families.setdefault((*head, -1 - row.index) if own else head, []).append(row)
    return list(families.values())


def _packed(
    family: list[Row], rows: int, token_budget: int, limits: Mapping[int, int]
) -> list[list[Row]]:
    """Batches of neighbours in lexical order, by the tokens that rows add to the first one's."""
    batches: list[list[Row]] = []
    most, stored, widest = _most(max(row.length for row in family), rows, limits), 0, 0
    for row in sorted(family, key=lambda row: (row.path, repr(row.config))):
        size = len(batches[-1]) if batches else 0
        common = common_prefix(batches[-1][-1].path, row.path) if size else 0
        added = row.length - common
        # The first row's own tokens are known once there is a second one.
        wide = max(widest, _own(row, common), _own(batches[-1][0], common) if size == 1 else 0)
        uneven = (size + 1) * wide > UNEVEN * token_budget
        if size in (0, most) or stored + added > token_budget or uneven:
            batches.append([])
            # However long the prefix, its rows stay together.
            stored, added, wide = 0, row.room, 0
        batches[-1].append(row)
        stored, widest = stored + added, wide
    return batches


def _own(row: Row, common: int) -> int:
    """Tokens that a row has for itself if it shares so many with a neighbour."""
    return row.length - (common if MOST_OWN * common >= len(row.path) else 0)


def _widest(batch: Sequence[Row], common: Sequence[int]) -> int:
    """Most tokens that a row has for itself, by those that each has in common with the next."""
    both = pairwise([0, *common, 0])
    return max(_own(row, max(sides)) for row, sides in zip(batch, both, strict=True))


def _joined(
    packed: list[list[Row]], rows: int, token_budget: int, limits: Mapping[int, int]
) -> list[list[Row]]:
    """Neighbouring families' batches in one, while all their tokens keep the budget."""
    batches: list[list[Row]] = []
    stored = longest = widest = 0
    for batch in packed:
        common = [common_prefix(a.path, b.path) for a, b in pairwise(batch)]
        cost = sum(row.length for row in batch) - sum(common)  # different tokens, and room
        length, wide = max(row.length for row in batch), _widest(batch, common)
        joined = len(batches[-1]) + len(batch) if batches else 0
        fits = joined <= _most(max(longest, length), rows, limits)
        even = joined * max(widest, wide) <= UNEVEN * token_budget
        if batches and fits and even and stored + cost <= token_budget:
            batches[-1].extend(batch)
            stored, longest, widest = stored + cost, max(longest, length), max(widest, wide)
        else:
            batches.append(batch)
            stored, longest, widest = cost, length, wide
    return batches


def _padded(
    rows: list[Row], batch_size: int | None, token_budget: int, limits: Mapping[int, int]
) -> list[list[Row]]:
    batches: list[list[Row]] = []
    first: dict[Path, int] = {}
    for row in rows:
        first.setdefault(row.path, row.index)
    longest = 0
    for row in sorted(rows, key=lambda row: (-len(row.prompt_ids), first[row.path], row.index)):
        size = len(batches[-1]) if batches else 0
        longest = max(longest, row.length)
        most = batch_size or max(1, token_budget // longest)
        full = size >= _most(longest, most, limits)
        if not batches or full:
            batches.append([])
            longest = row.length
        batches[-1].append(row)
    return batches
