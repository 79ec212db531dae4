"""The planner: every row once, one config a batch, no more padding than the budget allows."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.engine.planning import (
    MOST_OWN,
    PACKED_ROWS,
    SHARED_TOKENS,
    TOKEN_BUDGET,
    UNEVEN,
    Row,
    RowSteering,
    common_prefix,
    plan,
)
from pytest_llmprobe.engine.prefixes import each_leaf, prefix_tree
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


# With shared prefixes. The last two heads are too short to be shared.
HEADS = [(0,) * SHARED_TOKENS, (1,) * SHARED_TOKENS, (0,) * (SHARED_TOKENS - 4), ()]
prompts = st.tuples(st.sampled_from(HEADS), st.lists(st.integers(0, 1), max_size=6)).map(
    lambda parts: (*parts[0], *parts[1])
)


def sharing_rows(shape, copies):
    """Rows of a few families; ``copies`` of all, which are then more than a batch may hold."""
    return [Row(n, ids, config) for n, (ids, config) in enumerate(shape * copies)]


sharing = st.builds(
    sharing_rows,
    st.lists(st.tuples(prompts, st.sampled_from(CONFIGS[:3])), max_size=20),
    st.sampled_from([1, 1, 1, 30]),
)
sharing_budgets = budgets | st.just(TOKEN_BUDGET)


def families(rows):
    """Lists of two rows or more with one head, and the rows without such kin."""
    by_head = {}
    for row in rows:
        long = len(row.prompt_ids) > SHARED_TOKENS
        key = (row.prompt_ids[:SHARED_TOKENS], None if long else row.index)
        by_head.setdefault(key, []).append(row)
    kin = [family for family in by_head.values() if len(family) > 1]
    related = {row.index for family in kin for row in family}
    return kin, [row for row in rows if row.index not in related]


def batches_of(rows, batches):
    """The rows' share of each batch that holds any of them."""
    wanted = {row.index for row in rows}
    shares = ([row for row in batch if row.index in wanted] for batch in batches)
    return [share for share in shares if share]


def alone(neighbour, row):
    """Tokens that a row has for itself: few that are common are not stored once."""
    common = common_prefix(neighbour.prompt_ids, row.prompt_ids)
    return row.length - (common if MOST_OWN * common >= len(row.prompt_ids) else 0)


def added(batch):
    """Tokens that a batch stores besides its first prompt: new tokens and each row's own."""
    own = sum(
        len(b.prompt_ids) - common_prefix(a.prompt_ids, b.prompt_ids) for a, b in pairwise(batch)
    )
    return own + sum(row.config.max_new_tokens for row in batch)


@many
@given(sharing, batch_sizes, sharing_budgets)
def test_with_sharing_every_row_is_in_exactly_one_batch(rows, batch_size, budget):
    batches = plan(rows, batch_size, budget, share_prefixes=True)
    assert Counter(row.index for batch in batches for row in batch) == Counter(range(len(rows)))


def test_equal_prompts_are_one_batch_whatever_their_configs():
    for ids in ((7,) * 9, tuple(range(100))):
        configs = [GenerateConfig(temperature=n / 10) for n in range(20)]
        rows = [Row(n, ids, config) for n, config in enumerate(configs)]
        assert plan(rows, share_prefixes=True) == [rows]
        assert plan(rows) == [[row] for row in rows]


@many
@given(requests, batch_sizes, budgets)
def test_equal_prompts_are_neighbours_in_a_mixed_plan(rows, batch_size, budget):
    placed = [row for batch in plan(rows, batch_size, budget, True) for row in batch]
    changes = sum(a.prompt_ids != b.prompt_ids for a, b in pairwise(placed))
    assert changes == max(0, len({row.prompt_ids for row in rows}) - 1)


@many
@given(sharing, batch_sizes, sharing_budgets)
def test_a_familys_batches_are_no_larger_than_allowed(rows, batch_size, budget):
    batches = plan(rows, batch_size, budget, share_prefixes=True)
    for family in families(rows)[0]:
        own = batches_of(family, batches)
        assert sum(map(len, own)) == len(family)
        for batch in own:
            assert len(batch) <= (batch_size or PACKED_ROWS)
            assert added(batch) <= budget or len(batch) == 1


@many
@given(sharing, batch_sizes, sharing_budgets)
def test_a_familys_batch_is_filled_before_the_next_one_begins(rows, batch_size, budget):
    batches = plan(rows, batch_size, budget, share_prefixes=True)
    for family in families(rows)[0]:
        for batch, following in pairwise(batches_of(family, batches)):
            full = len(batch) == (batch_size or PACKED_ROWS)
            more = [*batch, following[0]]
            own = max(alone(*pair) for pair in [more[1::-1], *pairwise(more)])
            uneven = len(more) * own > UNEVEN * budget
            assert full or uneven or added(more) > budget


@many
@given(sharing, batch_sizes, sharing_budgets)
def test_a_family_is_in_lexical_order_and_ties_keep_theirs(rows, batch_size, budget):
    batches = plan(rows, batch_size, budget, share_prefixes=True)
    for family in families(rows)[0]:
        planned = [row for batch in batches_of(family, batches) for row in batch]
        keys = [(row.prompt_ids, repr(row.config), row.index) for row in planned]
        assert keys == sorted(keys)


@many
@given(sharing, batch_sizes)
def test_a_family_that_fits_is_one_batch(rows, batch_size):
    batches = plan(rows, batch_size, 10**6, share_prefixes=True)
    for family in families(rows)[0]:
        most = batch_size or PACKED_ROWS
        assert len(batches_of(family, batches)) == -(-len(family) // most)


@many
@given(sharing, batch_sizes, sharing_budgets)
def test_rows_without_kin_are_planned_as_without_sharing(rows, batch_size, budget):
    alone = families(rows)[1]
    batches = plan(rows, batch_size, budget, share_prefixes=True)
    assert batches_of(alone, batches) == plan(alone, batch_size, budget, share_prefixes=True)
    one = [replace(row, config=CONFIGS[0]) for row in alone]
    assert plan(one, batch_size, budget, share_prefixes=True) == plan(one, batch_size, budget)


@many
@given(requests, batch_sizes, budgets)
def test_prompts_too_short_to_share_are_planned_as_without_sharing(rows, batch_size, budget):
    rows = [replace(row, config=CONFIGS[0]) for row in rows]
    sharing = plan(rows, batch_size, budget, share_prefixes=True)
    assert sharing == plan(rows, batch_size, budget)


@many
@given(requests, budgets)
def test_rows_of_different_configs_keep_the_budget_too(rows, budget):
    for batch in plan(rows, token_budget=budget, share_prefixes=True):
        assert cost(batch) <= budget or len(batch) == 1


@pytest.mark.parametrize(("own", "count"), [(0, 2), (1, 1)])
def test_a_head_is_shared_only_with_a_token_after_it(own, count):
    rows = [Row(n, (7,) * SHARED_TOKENS + (n,) * own, CONFIGS[0]) for n in range(2)]
    assert len(plan(rows, token_budget=SHARED_TOKENS + 2, share_prefixes=True)) == count


def test_rows_with_a_prefix_far_beyond_the_budget_stay_together():
    prefix = tuple(range(100_000))
    rows = [Row(n, (*prefix, n, 1, 2), CONFIGS[2]) for n in range(20)]
    assert plan(rows, share_prefixes=True) == [rows]


def test_a_long_row_is_not_joined_by_short_ones_that_share_a_little():
    head = tuple(range(64))
    long = Row(0, (*head, *range(100, 20_000)), CONFIGS[0])
    short = [Row(n, (*head, *[n] * 30), CONFIGS[0]) for n in range(1, 100)]
    kin = [Row(100, (*range(900, 9_000), n), CONFIGS[0]) for n in range(2)]
    rows = [long, *short, *kin]
    for batch in plan(rows, None, 16_384, share_prefixes=True, packed_rows=128):
        capacity = max(row.length - node.end for node, row in each_leaf(prefix_tree(batch)))
        assert len(batch) * capacity <= UNEVEN * 16_384 or len(batch) == 1


def test_families_are_not_joined_if_one_has_long_rows_of_its_own():
    long = [Row(n, (*range(64), *[n] * 8_000), CONFIGS[0]) for n in range(2)]
    short = [Row(n, (*range(100, 200), n), CONFIGS[0]) for n in range(2, 102)]
    plans = plan([*long, *short], None, 40_000, share_prefixes=True, packed_rows=128)
    assert sorted(map(len, plans)) == [2, 100]


def test_rows_with_one_head_are_neighbours_although_others_lie_between_them():
    rows = [Row(n, HEADS[n % 2] + (2,) * n, CONFIGS[0]) for n in range(1, 9)]
    assert [[row.index for row in batch] for batch in plan(rows, share_prefixes=True)] == [
        [2, 4, 6, 8, 1, 3, 5, 7]
    ]
    batches = plan(rows, token_budget=SHARED_TOKENS + 40, share_prefixes=True)
    assert [[row.index for row in batch] for batch in batches] == [[2, 4, 6, 8], [1, 3, 5, 7]]


@many
@given(sharing, batch_sizes, sharing_budgets)
def test_families_share_a_batch_only_within_the_budget(rows, batch_size, budget):
    for batch in plan(rows, batch_size, budget, share_prefixes=True):
        assert len(batch) <= (batch_size or PACKED_ROWS) or len(families(batch)[0]) == 0
        if len(families(batch)[0]) > 1:
            assert len(batch[0].prompt_ids) + added(batch) <= budget


@many
@given(sharing, batch_sizes, sharing_budgets)
def test_a_family_is_planned_alike_whatever_else_is_asked(rows, batch_size, budget):
    batches = plan(rows, batch_size, budget, share_prefixes=True)
    for family in families(rows)[0]:
        assert batches_of(family, batches) == plan(family, batch_size, budget, share_prefixes=True)


@many
@given(sharing, batch_sizes, sharing_budgets, st.randoms(use_true_random=False))
def test_a_plan_is_the_same_for_other_orders_seeds_and_drafts(rows, batch_size, budget, chance):
    rows = list({(row.prompt_ids, row.config): row for row in rows}.values())
    changed = [replace(row, seed=chance.randrange(9), draft="a" * row.index) for row in rows]
    chance.shuffle(changed)
    before = list(changed)

    def packed(asked):
        batches = plan(asked, batch_size, budget, share_prefixes=True)
        kin = [row for family in families(asked)[0] for row in family]
        return sorted([row.index for row in batch] for batch in batches_of(kin, batches))

    assert packed(changed) == packed(rows)
    assert changed == before


@many
@given(st.lists(st.integers(0, 1), max_size=40), st.data())
def test_the_common_prefix_is_that_of_a_plain_loop(a, data):
    kept = data.draw(st.integers(0, len(a)))
    b = a[:kept] + data.draw(st.lists(st.integers(0, 1), max_size=10))
    expected = 0
    while expected < min(len(a), len(b)) and a[expected] == b[expected]:
        expected += 1
    assert common_prefix(a, b) == common_prefix(b, a) == expected
    assert common_prefix(tuple(a), tuple(b)) == expected


# Steered rows.
BIASES = (0.0, 1.0, -2.0)
HOWS = [None, ((0, 1), "all"), ((0, 1), "prefill"), ((1,), "all")]


def steered(row, biases, how):
    """The row, steered by the first biases of a list."""
    bias = tuple(biases[: len(row.prompt_ids)])
    return replace(row, steering=RowSteering(bias, *how))


steered_rows = st.lists(
    st.tuples(prompts.filter(len), st.sampled_from([0, 0, 3, 70]), st.sampled_from(BIASES)),
    max_size=20,
).map(
    lambda shapes: [
        steered(Row(n, ids, CONFIGS[0]), (0.0,) * at + (bias,) * (100 - at), HOWS[1])
        for n, (ids, at, bias) in enumerate(shapes)
    ]
)


def coded(row):
    """An unsteered row in whose place of each token stands a number for it and its bias."""
    pairs = zip(row.prompt_ids, row.steering.bias, strict=True)
    ids = tuple(len(BIASES) * token + sorted(BIASES).index(bias) for token, bias in pairs)
    return replace(row, prompt_ids=ids, steering=None)


@many
@given(steered_rows, batch_sizes, sharing_budgets, st.booleans())
def test_a_bias_tells_tokens_apart_as_other_ids_would(rows, batch_size, budget, share):
    planned = plan(rows, batch_size, budget, share)
    expected = plan([coded(row) for row in rows], batch_size, budget, share)
    assert [[row.index for row in batch] for batch in planned] == [
        [row.index for row in batch] for batch in expected
    ]


@many
@given(sharing, st.lists(st.sampled_from(HOWS), min_size=1), batch_sizes, sharing_budgets)
def test_layers_and_phases_never_mix_nor_steered_rows_with_others(rows, hows, size, budget):
    asked = []
    for row, how in zip(rows, hows * len(rows), strict=False):
        asked.append(row if how is None else steered(row, BIASES * 30, how))
    batches = plan(asked, size, budget, share_prefixes=True)
    assert sorted(row.index for batch in batches for row in batch) == [row.index for row in asked]
    for batch in batches:
        ways = {row.steering and (row.steering.layers, row.steering.phase) for row in batch}
        assert len(ways) == 1
    unsteered = [row for row in asked if row.steering is None]
    assert batches_of(unsteered, batches) == plan(unsteered, size, budget, share_prefixes=True)


def test_rows_that_differ_in_their_first_bias_share_nothing():
    ids = (7,) * (2 * SHARED_TOKENS)
    late, early = (2 * SHARED_TOKENS - 1, 3)
    for at, batches in ((late, 1), (early, 2)):
        rows = [
            steered(Row(n, ids, CONFIGS[0]), (*[0.0] * at, delta, *[0.0] * 200), HOWS[1])
            for n, delta in enumerate((1.0, 2.0))
        ]
        budget = 2 * SHARED_TOKENS + 5  # too small for both unless they share
        assert len(plan(rows, token_budget=budget, share_prefixes=True)) == batches


def test_a_long_path_holds_few_objects():
    row = steered(Row(0, (5, 6) * 50_000, CONFIGS[0]), [0.0, 0.0, 1.0, 1.0] * 25_000, HOWS[1])
    assert len(row.path) == 100_000
    assert len(set(map(id, row.path))) == 4
