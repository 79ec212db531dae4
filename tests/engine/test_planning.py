"""The planner: every row once, one config a batch, no more padding than the budget allows."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.engine.planning import Row, plan
from pytest_llmprobe.generation import GenerateConfig

many = settings(deadline=None, max_examples=200)
CONFIGS = [GenerateConfig(max_new_tokens=n, stop=stop) for n in (1, 5, 40) for stop in ((), "x")]
budgets = st.integers(1, 400)
batch_sizes = st.none() | st.integers(1, 9)


shapes = st.lists(st.tuples(st.integers(0, 60), st.sampled_from(CONFIGS)), max_size=25)


def rows_of(shape, refused):
    """Rows as the engine makes them; a prompt that was refused leaves a gap in the indexes."""
    return [
        Row(index, (7,) * length, config)
        for index, (length, config) in enumerate(shape)
        if not refused >> index & 1
    ]


requests = st.builds(rows_of, shapes, st.integers(0, 2**25) | st.just(0))


def cost(batch):
    """Rows times the padded length of each."""
    return len(batch) * max(len(row.prompt_ids) + row.config.max_new_tokens for row in batch)


@many
@given(requests, batch_sizes, budgets)
def test_every_row_is_in_exactly_one_batch(rows, batch_size, budget):
    planned = [row for batch in plan(rows, batch_size, budget) for row in batch]
    assert sorted(planned, key=lambda row: row.index) == rows


@many
@given(requests, batch_sizes, budgets)
def test_a_batch_has_one_config_and_at_least_one_row(rows, batch_size, budget):
    for batch in plan(rows, batch_size, budget):
        assert len({row.config for row in batch}) == 1


@many
@given(requests, budgets)
def test_only_a_single_row_may_exceed_the_budget(rows, budget):
    for batch in plan(rows, token_budget=budget):
        assert cost(batch) <= budget or len(batch) == 1


@many
@given(requests, budgets)
def test_a_batch_is_filled_before_the_next_one_begins(rows, budget):
    for batch, following in pairwise(plan(rows, token_budget=budget)):
        if batch[0].config == following[0].config:
            assert cost([*batch, following[0]]) > budget


@many
@given(requests, st.integers(1, 9), budgets)
def test_a_batch_size_is_kept_whatever_the_budget(rows, batch_size, budget):
    by_config = {}
    for batch in plan(rows, batch_size, budget):
        by_config.setdefault(batch[0].config, []).append(len(batch))
    for lengths in by_config.values():
        assert all(length == batch_size for length in lengths[:-1])
        assert 1 <= lengths[-1] <= batch_size


@many
@given(requests, batch_sizes, budgets)
def test_longest_prompts_come_first_and_ties_keep_their_order(rows, batch_size, budget):
    by_config = {}
    for batch in plan(rows, batch_size, budget):
        by_config.setdefault(batch[0].config, []).extend(batch)
    for members in by_config.values():
        keys = [(-len(row.prompt_ids), row.index) for row in members]
        assert keys == sorted(keys)


@many
@given(requests, batch_sizes, budgets)
def test_planning_leaves_the_requests_alone_and_gives_the_same_plan_again(rows, size, budget):
    before = list(rows)
    assert plan(rows, size, budget) == plan(rows, size, budget)
    assert rows == before


def test_nothing_to_generate_is_no_batch():
    assert plan([]) == []


@pytest.mark.parametrize(("batch_size", "expected"), [(None, [3, 1]), (2, [2, 2]), (1, [1] * 4)])
def test_a_plan_by_hand(batch_size, expected):
    rows = [Row(n, (7,) * length, CONFIGS[2]) for n, length in enumerate((5, 4, 5, 1))]
    batches = plan(rows, batch_size, token_budget=30)  # 30 // (5 + 5 new tokens) = 3 rows
    assert [len(batch) for batch in batches] == expected
    assert [row.index for batch in batches for row in batch] == [0, 2, 1, 3]
