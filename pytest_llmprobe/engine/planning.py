"""Which requests share a forward batch: a pure function of configs and token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_llmprobe.generation import GenerateConfig

TOKEN_BUDGET = 8192
"""Rows times (longest prompt + new tokens) of a batch: more is not faster on a CPU core."""

SHARED_TOKENS = 64
"""Common tokens from which on a prefix is worth storing once."""

PACKED_ROWS = 64
"""Rows of a batch with a shared prefix: each step scores every row against all rows' tokens."""


@dataclass(frozen=True)
class Row:
    """One request as the planner and a backend see it.

    Args:
        index: Its place among the requests.
        prompt_ids: Token ids of the prompt.
        config: How to generate.
        seed: Seed of its sampling.
        draft: A guess of the answer, as text or token ids.
    """

    index: int
    prompt_ids: tuple[int, ...]
    config: GenerateConfig
    seed: int = 0
    draft: str | tuple[int, ...] | None = None


def plan(
    rows: Sequence[Row],
    batch_size: int | None = None,
    token_budget: int = TOKEN_BUDGET,
    share_prefixes: bool = False,
) -> list[list[Row]]:
    """Cut rows into batches of one config each.

    Rows whose prompts begin with the same tokens go together if the backend stores shared
    prefixes once; all others are sorted by length, longest first, which keeps padding small. Ties
    keep the order of the requests, so the plan of a work unit is the same in every process.

    Args:
        rows: What is to be generated.
        batch_size: Rows in a batch, or None to fill ``token_budget``.
        token_budget: Padded tokens of a batch at most, or, with a shared prefix, tokens that
            the other rows add to the first one's; one row may exceed it.
        share_prefixes: Whether the backend stores a shared prefix once.

    Returns:
        Batches; every row is in exactly one.
    """
    by_config: dict[GenerateConfig, list[Row]] = {}
    for row in rows:
        by_config.setdefault(row.config, []).append(row)
    batches: list[list[Row]] = []
    for members in by_config.values():
        alone: list[Row] = []
        for family in _families(members) if share_prefixes else [members]:
            if share_prefixes and len(family) > 1:
                batches += _packed(family, batch_size or PACKED_ROWS, token_budget)
            else:
                alone += family
        batches += _padded(alone, batch_size, token_budget)
    return batches


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of leading tokens that two prompts share."""
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
    families: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        head = row.prompt_ids[:SHARED_TOKENS]
        own = len(row.prompt_ids) <= SHARED_TOKENS
        families.setdefault((*head, -1 - row.index) if own else head, []).append(row)
    return list(families.values())


def _packed(family: list[Row], most: int, token_budget: int) -> list[list[Row]]:
    """Batches of neighbours in lexical order, by the tokens that rows add to the first one's."""
    batches: list[list[Row]] = []
    stored = 0
    previous: tuple[int, ...] = ()
    for row in sorted(family, key=lambda row: row.prompt_ids):
        ids, room = row.prompt_ids, row.config.max_new_tokens
        added = len(ids) - common_prefix(previous, ids) + room
        if not batches or len(batches[-1]) == most or stored + added > token_budget:
            batches.append([])
            stored, added = 0, room  # however long the prefix, its rows stay together
        batches[-1].append(row)
        stored += added
        previous = ids
    return batches


def _padded(rows: list[Row], batch_size: int | None, token_budget: int) -> list[list[Row]]:
    batches: list[list[Row]] = []
    rows = sorted(rows, key=lambda row: -len(row.prompt_ids))
    start = 0
    while start < len(rows):
        longest = len(rows[start].prompt_ids) + rows[start].config.max_new_tokens
        size = batch_size or max(1, token_budget // longest)
        batches.append(rows[start : start + size])
        start += size
    return batches
