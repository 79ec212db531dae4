"""Work units: the scheduler and every worker must cut the same selection the same way."""

from itertools import groupby, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.plugin.units import UNIT_SIZE, group_of, unit_numbers, work_units

many = settings(deadline=None, max_examples=200)
sizes = st.integers(1, 12)


masks = st.integers(0, 2**64)
shapes = st.lists(st.lists(st.integers(-6, 9).filter(bool), max_size=6), max_size=3)


def collection(shape):
    """Node ids in pytest's order; a negative number stands for cases without a group."""
    ids = []
    for function, group_sizes in enumerate(shape):
        for group, cases in enumerate(group_sizes):
            name = f"g{group}/c" if cases > 0 else f"c{group}-"
            ids += [f"evals/test_x.py::test_{function}[{name}{n}]" for n in range(abs(cases))]
    return ids


def select(ids, mask):
    """What -k, --lf or node ids may leave."""
    return [node_id for place, node_id in enumerate(ids) if mask >> place % 64 & 1]


collections = shapes.map(collection)
selections = st.builds(select, collections, masks)


def groups(ids):
    return [list(members) for _, members in groupby(ids, key=group_of)]


@pytest.mark.parametrize(
    ("node_id", "expected"),
    [
        ("e/test_x.py::test_a[g/c]", ("e/test_x.py::test_a", "g")),
        ("e/test_x.py::test_a[g/h/c]", ("e/test_x.py::test_a", "g/h")),
        ("e/test_x.py::test_a[c]", ("e/test_x.py::test_a", "c]")),
        ("e/test_x.py::test_a", ("e/test_x.py::test_a", "")),
    ],
)
def test_function_and_group_are_read_from_the_node_id(node_id, expected):
    assert group_of(node_id) == expected


def test_a_slash_in_the_path_is_no_group():
    one, other = group_of("a/b.py::test_x"), group_of("a/c.py::test_x")
    assert one != other


def test_a_folder_with_a_bracket_does_not_merge_its_functions():
    ids = ["run[1]/test_x.py::test_a[c]", "run[1]/test_x.py::test_b[c]"]
    assert work_units(ids) == [(ids[0],), (ids[1],)]


def test_small_groups_share_a_unit_and_a_large_one_has_its_own():
    ids = [f"t::a[{group}/{i}]" for group, n in (("x", 2), ("y", 2), ("z", 7)) for i in range(n)]
    assert [len(unit) for unit in work_units(ids, size=4)] == [4, 7]


def test_an_empty_selection_has_no_units():
    assert work_units([]) == []


@many
@given(selections, sizes)
def test_every_id_is_in_exactly_one_unit_in_order(ids, size):
    assert [node_id for unit in work_units(ids, size) for node_id in unit] == ids


@many
@given(selections, sizes)
def test_no_unit_is_empty_or_spans_two_functions(ids, size):
    for unit in work_units(ids, size):
        assert len({group_of(node_id)[0] for node_id in unit}) == 1


@many
@given(selections, sizes)
def test_a_group_is_never_split(ids, size):
    unit_of = {node_id: n for n, unit in enumerate(work_units(ids, size)) for node_id in unit}
    for members in groups(ids):
        assert len({unit_of[node_id] for node_id in members}) == 1


@many
@given(selections, sizes)
def test_a_unit_is_larger_than_the_limit_only_if_it_is_one_group(ids, size):
    for unit in work_units(ids, size):
        assert len(unit) <= size or len(groups(unit)) == 1


@many
@given(selections, sizes)
def test_a_unit_ends_only_where_the_next_group_would_not_fit(ids, size):
    for unit, following in pairwise(work_units(ids, size)):
        if group_of(unit[0])[0] == group_of(following[0])[0]:
            assert len(unit) + len(groups(following)[0]) > size


@many
@given(selections, sizes)
def test_what_is_left_after_a_unit_is_cut_as_before(ids, size):
    units = work_units(ids, size)
    for done in range(len(units)):
        left = [node_id for unit in units[done:] for node_id in unit]
        assert work_units(left, size) == units[done:]


@many
@given(selections, sizes)
def test_each_function_is_cut_as_if_it_were_alone(ids, size):
    alone = [
        unit
        for _, members in groupby(ids, key=lambda node_id: group_of(node_id)[0])
        for unit in work_units(members, size)
    ]
    assert work_units(ids, size) == alone


@many
@given(collections, masks)
def test_a_selection_keeps_together_what_it_keeps_of_a_group(ids, mask):
    kept = select(ids, mask)
    unit_of = {node_id: n for n, unit in enumerate(work_units(kept)) for node_id in unit}
    for members in groups(ids):
        assert len({unit_of[node_id] for node_id in members if node_id in unit_of}) <= 1


@many
@given(collections, masks)
def test_two_ids_have_one_number_exactly_if_they_share_a_unit(ids, mask):
    units = work_units(select(ids, mask), size=3)
    numbers = unit_numbers(ids, units)
    shared = {node_id: unit for unit in units for node_id in unit}
    for a, number_a in zip(ids, numbers, strict=True):
        for b, number_b in zip(ids, numbers, strict=True):
            together = a == b or (a in shared and shared[a] == shared.get(b))
            assert (number_a == number_b) == together


def test_the_default_size_holds_a_batch_of_short_cases():
    ids = [f"t::a[c{i}]" for i in range(2 * UNIT_SIZE)]
    assert [len(unit) for unit in work_units(ids)] == [UNIT_SIZE, UNIT_SIZE]
