"""Curves, heat maps and effective context length, by hand and by what they must be."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.report.charts import charts, is_drawn
from pytest_llmprobe.statistics.intervals import wilson
from pytest_llmprobe.statistics.tables import (
    curve,
    effective_context,
    heat_map,
    score_curve,
    score_heat_map,
)

many = settings(deadline=None, max_examples=150)


@dataclass
class Judged:
    is_correct: bool
    size: object = None
    params: dict = field(default_factory=dict)
    scores: dict = field(default_factory=dict)
    prompt_characters: int = 0
    task = trial = group = None


def cell(passed, n, **fields):
    return [Judged(i < passed, **fields) for i in range(n)]


records = st.lists(
    st.builds(
        Judged,
        st.booleans(),
        st.sampled_from([5, 10, 20, "5-k", "10-k", None]),
        st.dictionaries(st.sampled_from("xy"), st.integers(0, 3) | st.sampled_from("ab")),
        prompt_characters=st.integers(1, 5000),
    ),
    max_size=30,
)
KEYS = st.sampled_from(["size", "x", "y"])


def test_a_curve_is_a_pass_rate_with_its_interval_for_each_value():
    found = curve(
        [*cell(1, 4, params={"hops": 10}), *cell(3, 3, params={"hops": 2}), *cell(1, 1)], "hops"
    )
    assert found == [
        {"value": 2, "n": 3, "pass_rate": 1.0, "ci95": list(wilson(3, 3))},
        {"value": 10, "n": 4, "pass_rate": 0.25, "ci95": list(wilson(1, 4))},
    ]


@pytest.mark.parametrize(
    ("values", "order"),
    [
        ([10, 9, 2.5], [2.5, 9, 10]),
        (["10-k", "9-k", "a"], ["9-k", "10-k", "a"]),
        (["forward", "backward", 3, "random"], [3, "backward", "forward", "random"]),
        ([None, [1], 2], [2]),
        (["", "1", "01", "a1b", "a"], ["", "1", "01", "a", "a1b"]),
    ],
)
def test_values_are_in_order_of_size_and_what_is_no_value_is_left_out(values, order):
    found = curve([Judged(True, params={"key": value}) for value in values], "key")
    assert [point["value"] for point in found] == order


@many
@given(records, KEYS)
def test_every_record_with_the_key_is_in_one_point_of_its_curve(judged, key):
    found = curve(judged, key)
    with_key = [r for r in judged if (r.size if key == "size" else r.params.get(key)) is not None]
    assert sum(point["n"] for point in found) == len(with_key)
    passed = sum(round(point["n"] * point["pass_rate"]) for point in found)
    assert passed == sum(r.is_correct for r in with_key)
    assert all(p["ci95"][0] <= p["pass_rate"] <= p["ci95"][1] for p in found)


def test_a_score_curve_is_a_mean_over_those_that_have_the_score():
    judged = [
        Judged(False, 1, scores={"recall": 0.5}),
        Judged(True, 1, scores={"recall": 1.0}),
        Judged(False, 1),
        Judged(False, 2, scores={"recall": 0.25}),
        Judged(False, 3, scores={"f1": 0.25}),
    ]
    one, two = score_curve(judged, "size", "recall")
    assert (one["value"], one["n"], one["mean"]) == (1, 2, 0.75)
    assert one["ci95"][0] < 0.75 < one["ci95"][1]
    assert two == {"value": 2, "n": 1, "mean": 0.25, "ci95": None}


def test_a_heat_map_has_a_row_and_a_column_for_every_value_and_shows_what_is_empty():
    judged = [
        *cell(1, 2, size=20, params={"depth": 0}),
        *cell(3, 3, size=5, params={"depth": 0}),
        *cell(0, 1, size=5, params={"depth": 100}),
        *cell(1, 1, size=None, params={"depth": 50}),
    ]
    assert heat_map(judged, rows="depth", columns="size") == {
        "row_key": "depth",
        "column_key": "size",
        "rows": [0, 100],
        "columns": [5, 20],
        "n": [[3, 2], [1, 0]],
        "pass_rate": [[1.0, 0.5], [0.0, None]],
    }


@many
@given(records)
def test_a_heat_map_turned_is_the_heat_map_of_the_keys_turned(judged):
    one, other = heat_map(judged, "x", "size"), heat_map(judged, "size", "x")
    assert (one["rows"], one["columns"]) == (other["columns"], other["rows"])
    for table in ("n", "pass_rate"):
        assert [list(row) for row in zip(*one[table], strict=True)] == other[table]
    assert sum(map(sum, one["n"])) == sum(r.size is not None and "x" in r.params for r in judged)


def sized(*cells):
    """(passed, n, pairs) of each size, 80 characters a pair."""
    return [
        Judged(i < passed, pairs, prompt_characters=80 * pairs + i)
        for passed, n, pairs in cells
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("cells", "characters"),
    [
        ([], None),
        ([(12, 12, 5)], 400),  # lower end 0.757
        ([(11, 11, 5)], None),  # 0.741: too few to be sure
        ([(100, 100, 5), (85, 100, 10), (84, 100, 20)], 1600),
        ([(100, 100, 5), (83, 100, 10), (100, 100, 20)], 400),  # 0.745: a size in between fails
        ([(0, 100, 5), (100, 100, 10)], None),
        ([(100, 100, 100), (100, 100, 20)], 8000),
    ],
)
def test_the_effective_context_is_the_largest_size_that_surely_holds(cells, characters):
    judged = sized(*cells)
    random.Random(0).shuffle(judged)
    assert effective_context(judged) == characters


def test_the_threshold_of_the_effective_context_is_a_choice():
    judged = sized((100, 100, 5), (60, 100, 10))
    assert [effective_context(judged, threshold) for threshold in (0.5, 0.75, 0.99)] == [
        800,
        400,
        None,
    ]


def test_sizes_can_be_told_apart_by_another_key():
    judged = [Judged(True, i, {"tokens": 100}, prompt_characters=99 + i) for i in range(12)]
    assert effective_context(judged) is None
    assert effective_context(judged, size="tokens") == 99


@many
@given(records)
def test_the_effective_context_is_a_prompt_of_a_size_that_holds(judged):
    found = effective_context(judged, threshold=0.3)
    holding = {p["value"] for p in curve(judged, "size") if p["ci95"][0] >= 0.3}
    assert found is None or found in {r.prompt_characters for r in judged if r.size in holding}


def test_a_score_heat_map_has_the_mean_of_each_cell():
    judged = [
        Judged(False, size, params={"depth": depth}, scores={"influence": value})
        for size, depth, value in [(1, 0, 0.5), (1, 0, 1.0), (2, 0, 0.25), (1, 50, 0.125)]
    ]
    judged.append(Judged(True, 2, params={"depth": 50}))  # not measured
    found = score_heat_map(judged, "depth", "size", "influence")
    assert (found["rows"], found["columns"]) == ([0, 50], [1, 2])
    assert found["mean"] == [[0.75, 0.25], [0.125, None]]
    assert found["n"] == [[2, 1], [1, 0]]
    assert is_drawn(found)
    assert "pass_rate" not in found
    assert "0.75" in charts({"influence_by_depth": found})[0].svg
