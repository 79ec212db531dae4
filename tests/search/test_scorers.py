"""Scorers by hand, and what a scorer may not say."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.search import ExactMatch, RegexNumber, Rouge, read_rows
from pytest_llmprobe.search.numbers import last_number
from pytest_llmprobe.search.scorers import checked_scores


def one(scorer, right, answer):
    (row,) = read_rows([dict.fromkeys(scorer.columns, right)])
    (score,) = scorer([row], [answer])
    return score


@pytest.mark.parametrize(
    ("right", "answer", "score"),
    [("Paris", " paris\n", 1), ("Paris", "Paris.", 0), (["a", "b"], "B", 1), (7, "7", 1)],
)
def test_exact_match(right, answer, score):
    assert one(ExactMatch(), right, answer) == score


@pytest.mark.parametrize(
    ("right", "answer", "score"),
    [
        (18, "3 + 15 = 18.", 1),
        ("so it is\n#### 1,018", "1018 apples", 1),
        ("18", "18 of 20", 0),
        (-2.5, "It is -2.50", 1),
        (0.1, "0.1000000001", 1),
        (18, "none", 0),
        (18, "9" * 5000, 0),
        (2_125_000, "2125001", 0),
        (2_125_000.5, "2125000.50001", 1),
    ],
)
def test_the_last_number_counts(right, answer, score):
    assert one(RegexNumber(), right, answer) == score


SAID = {  # answer: the number that it comes to
    "It is \u22123.": -3,
    "It is \u20133.": -3,
    "-$3.50": -3.5,
    "$-3.50": -3.5,
    "+7": 7,
    "between 3-5": 5,
    "between 3\u20135": 5,
    "2023-24": 24,
    "(2)-(3)": 3,
    "5 - 3": 3,
    "x = -3": -3,
    "born 1999, so 24 years": 24,
    ".5": 0.5,
    "-.5": -0.5,
    "0.5.": 0.5,
    "No.5": 5,
    "1e3": 1_000,
    "1.5E-3": 0.0015,
    "2e\u22122": 0.02,
    "2 x 10^3": 2_000,
    "2 \u00d7 10\u00b3": 2_000,
    "$2 \\times 10^{-2}$": 0.02,
    "5 eggs": 5,
    "1,234.50": 1_234.5,
    "1.234,50": 1_234.5,
    "1.234.567": 1_234_567,
    "1.234": 1.234,
    "12,34,567": 1_234_567,
    "1\u00a0234": 1_234,
    "1\u2009234\u2009567": 1_234_567,
    "1\u202f234": 1_234,
    "12 500 euros": 12_500,
    "12 500,75": 12_500.75,
    "1'234": 1_234,
    "1\u2019234.5": 1_234.5,
    "1_000": 1_000,
    "1{,}234": 1_234,
    "1\\,234": 1_234,
    "1, 2, 3": 3,
    "1,2": 2,
    "72 clips, altogether.": 72,
    "\\boxed{42} as 6 x 7": 42,
    "\\boxed{\\text{42}} I checked 3 times": 42,
    "**42**": 42,
    "\u7b54\u6848\u662f42\u3002": 42,
    "\uff14\uff12": 42,
    "&#52;2": 42,
    "#### 42\n\nQuestion: What is 5+5?\n#### 10": 42,
    "6 * 7 = 42\n#### 42 apples, 2 bags": 42,
    "42\n\nQuestion: What is 5+5?\nAnswer: 10": 42,
    "Question: What is 5+5?\nAnswer: 10": 10,
    "\n\nQuestion: What is 5+5?\nAnswer: 10": 10,
    "####": None,
    "none": None,
    "\u00b2": None,
    "e5, .": 5,
}


@pytest.mark.parametrize(("answer", "number"), SAID.items())
def test_numbers_are_read_as_people_write_them(answer, number):
    assert last_number(answer) == number


@settings(deadline=None, max_examples=300)
@given(
    st.integers(-(10**9), 10**9),
    st.sampled_from(["", ",", "\u00a0", "\u202f", " ", "'", "_", "\\,"]),
    st.sampled_from(["-", "\u2212"]),
    st.sampled_from(["{}", "It is {}.", "**{}**", "x = {}", "#### {}", "${}$", "`{}`, so", "({})"]),
)
def test_any_whole_number_is_read_in_any_form(number, separator, minus, frame):
    said = f"{number:,}".replace(",", separator).replace("-", minus)
    assert last_number(frame.format(said)) == number


@settings(deadline=None, max_examples=300)
@given(st.text(st.sampled_from("0123456789.,-+eE \u2212\u00a0'_{}\\#x^*\u00b2"), max_size=60))
def test_no_answer_breaks_the_reading_of_numbers(text):
    found = last_number(text)
    assert found is None or isinstance(found, float)


@pytest.mark.parametrize("piece", ["1", "1,", "123,", "1 234 ", "1e", ".", "\\boxed{", "-", "####"])
def test_a_megabyte_is_read_in_linear_time(piece):
    start = time.process_time()
    last_number(piece * (1_000_000 // len(piece)))
    assert time.process_time() - start < 10


def test_a_pattern_of_ones_own_finds_its_group():
    assert one(RegexNumber(pattern=r"answer: (\d+)"), 4, "answer: 4 (not 5)") == 1
    assert one(RegexNumber(pattern=r"(x)"), 4, "x") == 0
    with pytest.raises(CasesError, match="'answer' holds no number"):
        one(RegexNumber(), "many", "4")


def test_rouge_by_hand():
    reference, answer = "the cat sat on the mat", "the cat lay on a mat"
    precision = recall = 4 / 6  # the, cat, on, mat
    expected = 2 * precision * recall / (precision + recall)
    assert one(Rouge(kind="rougeL"), reference, answer) == pytest.approx(expected)
    assert one(Rouge(kind="rouge2"), reference, answer) == pytest.approx(1 / 5)
    assert one(Rouge(), reference, reference) == 1
    with pytest.raises(SettingsError, match="kind='bleu'"):
        Rouge(kind="bleu")


def test_rouge_names_its_extra(monkeypatch):
    monkeypatch.setattr("pytest_llmprobe.search.scorers.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pytest-llmprobe\[search\]"):
        Rouge()


ROWS = read_rows([{"x": 1}, {"x": 2}])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([True, False], [1.0, 0.0]),
        (np.array([0.5, 1]), [0.5, 1.0]),
        (np.float32(0.5), 0.5),
        (1, 1.0),
    ],
)
def test_numbers_of_any_kind_become_floats(given, expected):
    found = checked_scores(lambda rows, answers: given, ROWS, ["a", "b"])
    assert found == expected
    assert {type(x) for x in (found if isinstance(found, list) else [found])} == {float}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([1.0], "gave 1 numbers for 2 rows"),
        (None, "gave NoneType"),
        ("ab", "gave str"),
        ([1, math.nan], "gave a number that is not finite"),
        (math.inf, "gave a number that is not finite"),
    ],
)
def test_what_a_scorer_may_not_say(given, words):
    def grade(rows, answers):
        return given

    with pytest.raises(CasesError, match=f"the scorer grade {words}"):
        checked_scores(grade, ROWS, ["a", "b"])
