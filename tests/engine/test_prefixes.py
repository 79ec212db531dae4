"""The tree of common prefixes: every prompt whole and once, no token stored twice for nothing."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.engine import prefixes
from pytest_llmprobe.engine.planning import SHARED_TOKENS, Row, RowSteering, common_prefix
from pytest_llmprobe.engine.prefixes import depth_first, prefix_tree
from pytest_llmprobe.generation import GenerateConfig


@pytest.fixture(scope="module", autouse=True)
def short_common_beginnings_count():
    """As in prompts of which none is much longer than what it shares."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes, "MOST_OWN", 1000)
        yield


many = settings(deadline=None, max_examples=200)
CONFIG = GenerateConfig()


def rows_of(prompts):
    return [Row(index, tuple(prompt), CONFIG) for index, prompt in enumerate(prompts)]


# Few distinct stems and tokens, so that prompts are often equal, or go on where another one ends.
stems = st.lists(st.sampled_from([(), (0,) * 3, (0,) * 6, (1, 0, 1, 0, 1)]), max_size=3).map(
    lambda parts: sum(parts, ())
)
prompts = st.tuples(stems, st.lists(st.integers(0, 1), min_size=1, max_size=4)).map(
    lambda parts: (*parts[0], *parts[1])
)
requests = st.lists(prompts, min_size=1, max_size=12).map(rows_of)
leasts = st.integers(1, 5)


def paths(tree):
    """Each node with its ancestors, root first and itself last; without recursion."""
    found, rest = [], [(tree,)]
    while rest:
        path = rest.pop()
        found.append(path)
        rest += [(*path, child) for child in path[-1].children]
    return found


def indexes(rows):
    return sorted(row.index for row in rows)


@many
@given(requests, leasts)
def test_every_row_is_in_exactly_one_leaf(rows, least):
    leaves = [row for path in paths(prefix_tree(rows, least=least)) for row in path[-1].leaves]
    assert indexes(leaves) == indexes(rows)


@many
@given(requests, leasts)
def test_a_path_holds_the_prompts_beginning_and_leaves_its_last_token(rows, least):
    for path in paths(prefix_tree(rows, least=least)):
        tokens = sum((node.tokens for node in path), ())
        for row in path[-1].leaves:
            assert tokens == row.prompt_ids[: path[-1].end]
            assert path[-1].end < len(row.prompt_ids)


@many
@given(requests, leasts)
def test_a_node_begins_where_its_parent_ends(rows, least):
    for *above, node in paths(prefix_tree(rows, least=least)):
        assert node.start == (above[-1].end if above else 0)


@many
@given(requests, leasts)
def test_a_node_below_the_root_shares_enough_among_at_least_two_rows(rows, least):
    for *above, node in paths(prefix_tree(rows, least=least)):
        if above:
            others = len(depth_first(node)) - 1
            assert others >= 1
            assert min(len(node.tokens), least) * others >= least


@many
@given(requests, leasts)
def test_rows_that_share_enough_below_a_node_are_under_one_child(rows, least):
    for path in paths(prefix_tree(rows, least=least)):
        node = path[-1]
        child_of = dict.fromkeys(indexes(node.leaves))
        for number, child in enumerate(node.children):
            child_of |= dict.fromkeys(indexes(depth_first(child)), number)
        for a, b in combinations(depth_first(node), 2):
            sharable = min(
                common_prefix(a.prompt_ids, b.prompt_ids),
                len(a.prompt_ids) - 1,
                len(b.prompt_ids) - 1,
            )
            together = None not in (child_of[a.index], child_of[b.index]) and (
                child_of[a.index] == child_of[b.index]
            )
            if a.prompt_ids == b.prompt_ids:
                copies = sum(row.prompt_ids == a.prompt_ids for row in depth_first(node))
                saved = min(sharable - node.end, least) * (copies - 1)
                assert together == (saved >= least)
            else:
                assert together == (sharable >= node.end + least)


def test_what_all_rows_share_counts_for_a_family_if_it_is_stored_nowhere_else():
    tree = prefix_tree(rows_of([(0, 0), (0,) * 5, (0,) * 5]), least=4)
    assert (tree.tokens, indexes(tree.leaves)) == ((), [0])
    (child,) = tree.children
    assert (child.tokens, indexes(child.leaves)) == ((0,) * 4, [1, 2])


@many
@given(requests, leasts)
def test_a_tree_stores_no_more_than_the_prompts_and_no_less_than_their_trie(rows, least):
    stored = sum(
        len(path[-1].tokens) + sum(len(row.prompt_ids) - path[-1].end for row in path[-1].leaves)
        for path in paths(prefix_tree(rows, least=least))
    )
    distinct = {row.prompt_ids[:end] for row in rows for end in range(1, len(row.prompt_ids) + 1)}
    assert len(distinct) <= stored <= sum(len(row.prompt_ids) for row in rows)


@many
@given(requests, leasts)
def test_depth_first_holds_every_row_once_and_nodes_in_one_piece(rows, least):
    tree = prefix_tree(rows, least=least)
    order = [row.index for row in depth_first(tree)]
    assert sorted(order) == indexes(rows)
    for path in paths(tree):
        inside = [row.index for row in depth_first(path[-1])]
        first = order.index(inside[0])
        assert order[first : first + len(inside)] == inside


@given(prompts, st.integers(2, 5), leasts)
def test_identical_prompts_share_all_but_the_last_token(prompt, count, least):
    tree = prefix_tree(rows_of([prompt] * count), least=least)
    assert tree.tokens == (prompt[:-1] if (len(prompt) - 1) * (count - 1) >= least else ())
    assert indexes(tree.leaves) == list(range(count))
    assert tree.children == ()


@given(prompts, leasts)
def test_a_single_row_is_a_leaf_of_the_root(prompt, least):
    tree = prefix_tree(rows_of([prompt]), least=least)
    assert (tree.tokens, tree.children) == ((), ())
    assert indexes(tree.leaves) == [0]


@pytest.mark.parametrize(("own", "stored"), [(6, 2), (7, 0)])
def test_long_prompts_do_not_share_a_short_beginning(monkeypatch, own, stored):
    """A quarter here: 2 common tokens of 8 are worth it, of 9 they are not."""
    monkeypatch.setattr(prefixes, "MOST_OWN", 4)
    tree = prefix_tree(rows_of([(1, 2, *range(10, 10 + own)), (1, 2, 4), (1, 2, 5)]), least=2)
    assert (len(tree.tokens), tree.children) == (stored, ())
    assert indexes(tree.leaves) == [0, 1, 2]


def test_long_prompts_share_what_only_some_of_them_begin_with(monkeypatch):
    monkeypatch.setattr(prefixes, "MOST_OWN", 2)
    stems = [(1, 2, *[number] * 20) for number in (3, 4)]
    tree = prefix_tree(rows_of([(*stem, end) for stem in stems for end in (7, 8)]), least=2)
    assert tree.tokens == ()
    assert [(child.start, child.tokens) for child in tree.children] == [(0, s) for s in stems]


def test_two_levels_by_hand():
    prompts = [(1, 2, 3, 4, 5), (1, 2, 3, 4, 6), (1, 2, 9), (1, 2, 3, 4, 7, 7)]
    tree = prefix_tree(rows_of(prompts), least=2)
    (child,) = tree.children
    assert (tree.tokens, indexes(tree.leaves)) == ((1, 2), [2])
    assert (child.start, child.tokens, indexes(child.leaves)) == (2, (3, 4), [0, 1, 3])


def test_three_levels_of_the_usual_length():
    suite, case, question = ((n,) * SHARED_TOKENS for n in (1, 2, 3))
    prompts = [
        (*suite, 8),
        (*suite, *case, 7),
        (*suite, *case, 6),
        (*suite, *case, *question, 5),
        (*suite, *case, *question, 4),
    ]
    tree = prefix_tree(rows_of(prompts))
    (middle,) = tree.children
    (lowest,) = middle.children
    assert [node.tokens for node in (tree, middle, lowest)] == [suite, case, question]
    assert [indexes(node.leaves) for node in (tree, middle, lowest)] == [[0], [1, 2], [3, 4]]


@pytest.mark.parametrize(("common", "children"), [(SHARED_TOKENS - 1, 0), (SHARED_TOKENS, 1)])
def test_siblings_need_enough_in_common_to_be_a_node(common, children):
    prompts = [(1, 1), (2,) * common + (3,), (2,) * common + (4,)]
    assert len(prefix_tree(rows_of(prompts)).children) == children


def test_a_row_that_ends_with_the_shared_tokens_does_not_keep_the_others_from_sharing_them():
    long = (2,) * SHARED_TOKENS
    tree = prefix_tree(rows_of([(1, 1), long, (*long, *long, 3), (*long, *long, 4)]))
    (child,) = tree.children
    assert indexes(tree.leaves) == [0, 1]
    assert (child.tokens, indexes(child.leaves)) == (long + long, [2, 3])


@pytest.mark.parametrize("ending", [(), (1,)], ids=["extending one another", "branching off"])
def test_hundreds_of_nested_levels_are_no_problem(ending):
    levels = 300
    rows = rows_of([(0,) * (level + 1) + ending for level in range(levels)])
    tree = prefix_tree(rows, least=1)
    depth, node = 1, tree
    while node.children:
        (node,) = node.children
        depth += 1
    assert indexes(depth_first(tree)) == list(range(levels))
    assert depth >= levels - 2


def shape(node):
    """A tree without its tokens."""
    return node.start, node.end, indexes(node.leaves), [shape(child) for child in node.children]


@many
@given(requests, st.data(), leasts)
def test_steered_rows_share_as_far_as_tokens_and_biases_agree(rows, data, least):
    biases = [
        data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
        for n in (len(row.prompt_ids) for row in rows)
    ]
    steered = [
        Row(row.index, row.prompt_ids, CONFIG, steering=RowSteering(tuple(bias), (0,), "all"))
        for row, bias in zip(rows, biases, strict=True)
    ]
    coded = rows_of(
        [2 * token + bit for token, bit in zip(row.prompt_ids, bias, strict=True)]
        for row, bias in zip(rows, biases, strict=True)
    )
    tree = prefix_tree(steered, least=least)
    assert shape(tree) == shape(prefix_tree(coded, least=least))
    for path in paths(tree):
        held = sum((node.tokens for node in path), ())
        assert all(held == row.prompt_ids[: path[-1].end] for row in path[-1].leaves)
