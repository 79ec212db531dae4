"""Records: only what JSON and execnet carry, and the same after the journey."""

import json
import math
from dataclasses import replace
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pytest_llmprobe.case import Case
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.generation import Completion, Timings, Usage
from pytest_llmprobe.report.files import to_json
from pytest_llmprobe.report.record import MAX_TEXT, Record, bounded, build_record, plain
from pytest_llmprobe.report.schema import schema

many = settings(deadline=None, max_examples=100)


class Colour(str, Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Name(str):
    def __str__(self):
        return "something else"


class Count(int):
    pass


class Share(float):
    pass


PLAIN = [
    (None, None),
    (True, True),
    (5, 5),
    (0.5, 0.5),
    ("x", "x"),
    (Colour.RED, "red"),
    (Level.HIGH, 3),
    (Name("x"), "x"),
    (Count(5), 5),
    (Share(0.5), 0.5),
    (Share("nan"), "nan"),
    (math.nan, "nan"),
    (math.inf, "inf"),
    (-math.inf, "-inf"),
    (np.bool_(True), True),
    (np.int64(5), 5),
    (np.uint8(5), 5),
    (np.float64(0.5), 0.5),
    (np.float32(0.5), 0.5),
    (np.float16(0.5), 0.5),
    (np.longdouble(0.5), 0.5),
    (np.float32("nan"), "nan"),
    (np.float64("inf"), "inf"),
    (np.str_("x"), "x"),
    (np.array(5), 5),
    ((1, (2, [3])), [1, [2, [3]]]),
    ({np.int64(5)}, [5]),
    (frozenset(), []),
    ({"a": {"b": np.int64(1)}}, {"a": {"b": 1}}),
    (MappingProxyType({"a": (1,)}), {"a": [1]}),
    ({5: 1, None: 2}, {"5": 1, "None": 2}),
    (Path("a/b"), "a/b"),
    (Decimal("0.5"), "0.5"),
    (b"x", "b'x'"),
]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([Colour.RED, Level.HIGH, Name("x"), Count(1), Share(0.5)])
    | st.integers(-(2**31), 2**31 - 1).map(np.int64)
    | st.floats(width=32).map(np.float32)
    | st.booleans().map(np.bool_)
    | st.text(max_size=5).map(np.str_)
    | st.binary(max_size=5)
    | st.fractions()
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)
numbers = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
texts = st.none() | st.text()
records = st.builds(
    Record,
    id=st.text(),
    experiment=st.text(),
    outcome=st.sampled_from(["passed", "missed", "error", "skipped"]),
    task=texts,
    size=st.none() | st.integers() | numbers | st.text(),
    trial=st.none() | st.integers(),
    group=texts,
    params=st.dictionaries(st.text(), json_values, max_size=3),
    expected=json_values,
    received=texts,
    explanation=texts,
    error=texts,
    scores=st.dictionaries(st.text(), numbers, max_size=3),
    chance=st.none() | st.floats(0, 1),
    duration=st.floats(0, 1e6),
    prompt_characters=st.integers(0),
    prompt_tokens=st.integers(0),
    generated_tokens=st.integers(0),
    finish_reason=st.sampled_from([None, "stop", "length", "stop_string"]),
    batch_size=st.none() | st.integers(1),
    prompt_hash=texts,
    seed=st.none() | st.integers(0, 2**63 - 1),
    steered=st.lists(st.text(), max_size=3),
    steered_layers=st.integers(0),
)


def exact(value):
    """Whether execnet would carry a value: exact types all the way down."""
    if type(value) is dict:
        return all(type(key) is str and exact(item) for key, item in value.items())
    if type(value) is list:
        return all(map(exact, value))
    return type(value) in (type(None), bool, int, float, str)


def completion(text, seconds=0.5, tokens=(10, 3), batch_size=2):
    return Completion(text, (), "stop", Usage(*tokens), Timings(seconds, batch_size), "ab" * 8)


ONE_TEST = Draft202012Validator({"$ref": "#/$defs/test", "$defs": schema()["$defs"]})


def faults(record):
    """What the schema says against a record."""
    return [error.message for error in ONE_TEST.iter_errors(json.loads(to_json(record.as_dict())))]


@pytest.mark.parametrize(
    ("value", "expected"),
    PLAIN,
    ids=[f"{n}-{type(value).__name__}" for n, (value, _) in enumerate(PLAIN)],
)
def test_a_value_becomes_the_plain_one_that_it_stands_for(value, expected):
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)
    assert exact(found)


@many
@given(values)
def test_whatever_comes_in_exact_built_in_types_that_json_knows_come_out(value):
    found = plain(value)
    assert exact(found)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@many
@given(json_values)
def test_what_is_plain_already_stays_as_it_is(value):
    assert plain(value) == value


@many
@given(records)
def test_a_record_is_the_same_after_a_journey_through_json(record):
    assert Record.from_dict(json.loads(json.dumps(record.as_dict()))) == record


@many
@given(records)
def test_a_record_is_correct_exactly_if_it_passed(record):
    assert record.as_dict()["is_correct"] is record.is_correct is (record.outcome == "passed")


def test_a_record_has_the_fields_of_the_schema():
    fields = Record("a", "b", "passed").as_dict().keys()
    definition = schema()["$defs"]["test"]
    assert set(definition["required"]) == set(definition["properties"]) == fields


def test_a_record_takes_task_size_and_trial_from_the_metadata_and_keeps_the_rest():
    case = Case(
        "g/a",
        "prompt",
        ("x", "y"),
        {"task": "echo", "size": 5, "trial": 1, "depth": np.int64(50), "tags": ("a",)},
        chance=0.2,
        seed=7,
    )
    record = build_record("t::a[g/a]", "echo", "missed", case, [], {"f1": 0.5}, "too short")
    assert (record.task, record.size, record.trial) == ("echo", 5, 1)
    assert record.params == {"depth": 50, "tags": ["a"]}
    assert (record.group, record.expected, record.chance, record.seed) == ("g", ["x", "y"], 0.2, 7)
    assert (record.scores, record.explanation, record.error) == ({"f1": 0.5}, "too short", None)
    assert case.metadata.keys() == {"task", "size", "trial", "depth", "tags"}


def test_several_answers_are_added_up_and_the_last_is_the_one_received():
    answers = [completion("first", 0.5, (10, 3)), completion("last", 0.25, (20, 5), batch_size=4)]
    record = build_record("t::a", "e", "passed", None, answers, {})
    assert (record.received, record.batch_size, record.finish_reason) == ("last", 4, "stop")
    assert (record.duration, record.prompt_tokens, record.generated_tokens) == (0.75, 30, 8)


def test_a_crashed_case_has_a_record_without_case_and_answers():
    record = build_record("t::a", "e", "error", None, (), {}, error="worker died")
    assert record == Record("t::a", "e", "error", error="worker died")
    assert faults(record) == []


def test_long_texts_are_cut_and_say_how_much_is_missing():
    record = build_record(
        "t::a", "e", "error", None, [completion("x" * (MAX_TEXT + 5))], {}, "y" * 99999, "z" * 99999
    )
    assert record.received == "x" * MAX_TEXT + "... [5 more characters]"
    assert all(len(text) < MAX_TEXT + 50 for text in (record.explanation, record.error))


def test_what_was_steered_is_that_of_the_last_answer_and_bounded():
    last = replace(completion("b"), steered=("in French", "x" * (MAX_TEXT + 5)), steered_layers=3)
    record = build_record("t::a", "e", "passed", None, [completion("a"), last], {})
    assert record.steered == ["in French", "x" * MAX_TEXT + "... [5 more characters]"]
    assert record.steered_layers == 3
    unsteered = build_record("t::a", "e", "passed", None, [last, completion("a")], {})
    assert (unsteered.steered, unsteered.steered_layers) == ([], 0)
    assert faults(record) == []


@pytest.mark.parametrize(("text", "limit"), [(None, 3), ("", 0), ("abc", 3)])
def test_a_text_within_its_limit_is_left_alone(text, limit):
    assert bounded(text, limit) == text


def test_a_lone_surrogate_in_an_answer_can_be_written():
    record = build_record("t::a", "e", "passed", None, [completion("a\ud800b")], {})
    assert json.loads(to_json(record.as_dict()))["received"] == "a\ud800b"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", 5),
        ("task", ["a", "b"]),
        ("size", True),
        ("size", (3, 4)),
        ("size", math.nan),
        ("trial", "first"),
        ("trial", 0.5),
        ("depth", {"nested": (1, 2)}),
    ],
)
def test_metadata_is_refused_or_makes_a_record_that_follows_the_schema(field, value):
    try:
        case = Case("a", "p", metadata={field: value})
    except CasesError:
        return
    record = build_record("t::a", "e", "passed", case, [completion("x")], {})
    assert faults(record) == []


@pytest.mark.parametrize("chance", [np.float64(0.2), np.float32(0.2), Fraction(1, 5)])
def test_a_chance_is_refused_or_written_as_a_number(chance):
    try:
        case = Case("a", "p", chance=chance)
    except CasesError:
        return
    record = build_record("t::a", "e", "passed", case, [], {})
    assert json.loads(to_json(record.as_dict()))["chance"] == pytest.approx(0.2)


@many
@given(records)
def test_any_record_of_the_right_types_follows_the_schema(record):
    assert faults(record) == []


def test_of_a_long_prompt_both_ends_are_kept():
    def kept(prompt):
        return build_record("t::a", "a", "passed", Case("c", prompt), (), {}).prompt

    assert kept("a" * 2_000) == "a" * 2_000
    assert kept("a" * 5_000 + "b" * 1_000) == (
        "a" * 1_000 + "... [4000 more characters] ..." + "b" * 1_000
    )
    assert kept([{"role": "system", "content": "one"}, {"role": "user", "content": "two"}]) == (
        "one\n\ntwo"
    )
