"""Which requests share a forward batch: a pure function of configs, lengths and groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_llmprobe.generation import GenerateConfig

TOKEN_BUDGET = 8192
"""Rows times (longest prompt + new tokens) of a batch: more is not faster on a CPU core."""


@dataclass(frozen=True)
class Row:
    """One request as the planner and a backend see it.

    Args:
        index: Its place among the requests.
        prompt_ids: Token ids of the prompt.
        config: How to generate.
        seed: Seed of its sampling.
        group: Requests of one group share a long prefix.
    """

    index: int
    prompt_ids: tuple[int, ...]
    config: GenerateConfig
    seed: int = 0
    group: str | None = None


def plan(
    rows: Sequence[Row], batch_size: int | None = None, token_budget: int = TOKEN_BUDGET
) -> list[list[Row]]:
    """Cut rows into batches of one config each, longest prompts first.

    Sorting by length keeps padding small; ties keep the order of the requests, so the plan of a
    work unit is the same in every process.

    Args:
        rows: What is to be generated.
        batch_size: Rows in a batch, or None to fill ``token_budget``.
        token_budget: Rows times padded length of a batch at most; one row may exceed it.

    Returns:
        Batches; every row is in exactly one.
    """
    by_config: dict[GenerateConfig, list[Row]] = {}
    for row in rows:
        by_config.setdefault(row.config, []).append(row)
    batches: list[list[Row]] = []
    for config, members in by_config.items():
        members.sort(key=lambda row: -len(row.prompt_ids))
        start = 0
        while start < len(members):
            longest = len(members[start].prompt_ids) + config.max_new_tokens
            size = batch_size or max(1, token_budget // longest)
            batches.append(members[start : start + size])
            start += size
    return batches
