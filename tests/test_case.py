"""Cases: what is refused, what is normalised, and the even choice of --llmprobe-limit."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.case import (
    Case,
    RawPrompt,
    Span,
    check_cases,
    check_prompt,
    prompt_text,
    spread,
)
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.generation import GenerateConfig, Request

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]


@pytest.mark.parametrize("bad", ["", " ", "\t", "a\nb", "a\x1b[31m", "a\x00", 5, None])
def test_an_id_that_cannot_be_shown_on_one_line_is_refused(bad):
    with pytest.raises(CasesError, match="id"):
        Case(bad, "prompt")


@pytest.mark.parametrize("fine", ["a", "group/name", "größe 3/depth-50", "[x]"])
def test_a_printable_id_is_taken_as_it_is(fine):
    assert Case(fine, "prompt").id == fine


@pytest.mark.parametrize(
    ("case_id", "group"),
    [("name", None), ("group/name", "group"), ("a/b/name", "a/b"), ("/name", None), ("g/", "g")],
)
def test_the_group_is_what_stands_before_the_last_slash(case_id, group):
    assert Case(case_id, "prompt").group == group


def test_a_list_as_target_becomes_a_tuple_and_a_string_stays_one():
    assert Case("a", "p", ["x", "y"]).target == ("x", "y")
    assert Case("a", "p", "xy").target == "xy"


@pytest.mark.parametrize("chance", [-0.1, 1.01, math.nan, math.inf])
def test_a_chance_that_is_no_probability_is_refused_with_the_case_and_the_value(chance):
    with pytest.raises(CasesError, match=f"'a': chance {chance}"):
        Case("a", "p", chance=chance)


@pytest.mark.parametrize("chance", [None, 0, 0.5, 1])
def test_a_probability_is_a_chance(chance):
    assert Case("a", "p", chance=chance).chance == chance


@pytest.mark.parametrize(
    "spans",
    ["in French", Span("in French"), ["in French"], (Span("in French"),), iter(["in French"])],
)
def test_spans_are_given_as_strings_or_spans_one_or_several(spans):
    assert Case("a", "p", spans=spans).spans == (Span("in French"),)


def test_without_spans_a_case_has_none():
    assert Case("a", "p").spans == ()


@pytest.mark.parametrize(
    ("spans", "words"),
    [
        ("", "the text of a span is ''"),
        (["a", " "], "the text of a span is ' '"),
        (5, "5 is no span"),
        ([("a", 2)], r"\('a', 2\) is no span"),
    ],
)
def test_what_is_no_span_is_refused_and_the_error_names_the_case(spans, words):
    with pytest.raises(CasesError, match=f"case 'a': {words}"):
        Case("a", "p", spans=spans)


@pytest.mark.parametrize("level", [0, -1, math.nan, math.inf])
def test_a_level_is_a_number_above_0(level):
    with pytest.raises(CasesError, match="level"):
        Span("a", level)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        [],
        (),
        None,
        5,
        b"bytes",
        RawPrompt(""),
        RawPrompt("half of a pair: \ud800"),
        {"role": "user", "content": "one message without its list"},
        ["a string is no message"],
        [{"role": "user"}],
        [{"content": "hello"}],
        [{"role": "user", "content": None}],
        [*CHAT, {"role": 1, "content": "x"}],
        (message for message in CHAT),
    ],
)
def test_what_is_no_prompt_is_refused_and_the_error_names_the_case(prompt):
    with pytest.raises(CasesError, match="case 'a'"):
        Case("a", prompt)


@pytest.mark.parametrize(
    "prompt", ["text", " ", CHAT, tuple(CHAT), RawPrompt("Once"), RawPrompt("", (1,))]
)
def test_text_and_chat_messages_are_prompts(prompt):
    check_prompt(prompt)
    assert Case("a", prompt).prompt == prompt


def test_the_text_of_messages_is_joined_by_blank_lines_without_roles():
    assert prompt_text(CHAT) == "Be brief.\n\n2 + 2?"
    assert prompt_text("as is") == prompt_text(RawPrompt("as is", (7,))) == "as is"


def test_cases_of_a_generator_are_listed_in_order():
    cases = check_cases((Case(name, "p") for name in "abc"), "letters")
    assert [case.id for case in cases] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("given_cases", "message"),
    [
        ([], "letters yielded no cases"),
        ([Case("a", "p"), "b"], "letters yielded 'b', which is not a Case"),
        ([Case("a", "p"), Case("b", "p"), Case("a", "q")], "letters yielded two .* 'a'"),
    ],
)
def test_unusable_cases_are_refused_with_the_name_of_their_function(given_cases, message):
    with pytest.raises(CasesError, match=message):
        check_cases(given_cases, "letters")


@settings(deadline=None, max_examples=300)
@given(n=st.integers(0, 200), limit=st.integers(1, 250))
def test_a_limit_takes_that_many_cases_in_order_and_evenly(n, limit):
    cases = [Case(str(i), "p") for i in range(n)]
    chosen = [int(case.id) for case in spread(cases, limit)]
    assert len(chosen) == min(n, limit)
    gaps = {b - a for a, b in pairwise(chosen)}
    assert all(gap >= 1 for gap in gaps)
    assert max(gaps, default=0) - min(gaps, default=0) <= 1
    if chosen:
        before, after = chosen[0], n - 1 - chosen[-1]
        assert abs(before - after) <= 1


def test_no_limit_keeps_every_case():
    cases = [Case(str(i), "p") for i in range(7)]
    assert spread(cases, None) == cases


@pytest.mark.parametrize("room", [0, -1, 1.5, True, "9"])
def test_a_room_that_is_no_number_of_tokens_is_refused(room):
    with pytest.raises(CasesError, match=r"case 'a': max_new_tokens=.*whole number from 1 up"):
        Case("a", "p", max_new_tokens=room)


@pytest.mark.parametrize("stop", [[""], [3], 3, ""])
def test_a_stop_string_that_is_none_is_refused(stop):
    with pytest.raises(CasesError, match=r"case 'a': stop=.*non-empty strings"):
        Case("a", "p", stop=stop)


def test_a_case_is_asked_with_its_own_room_and_stop_strings():
    config = GenerateConfig(max_new_tokens=9, stop=("a", "b"), top_k=3)
    asked = Request.of_case(Case("a", "p", max_new_tokens=20, stop="b"), config).config
    assert asked == GenerateConfig(max_new_tokens=20, stop=("a", "b"), top_k=3)
    asked = Request.of_case(Case("a", "p", stop=["\n"]), config).config
    assert asked == GenerateConfig(max_new_tokens=9, stop=("a", "b", "\n"), top_k=3)
