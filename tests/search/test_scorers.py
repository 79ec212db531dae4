"""Scorers by hand, and what a scorer may not say."""

import math

import numpy as np
import pytest

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.search import ExactMatch, RegexNumber, Rouge, read_rows
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
