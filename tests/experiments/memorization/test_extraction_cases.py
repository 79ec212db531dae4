"""Scores of what was given back: by hand, and against their definitions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.memorization.extraction import ExtractionScores, extraction_scores

tokens = st.integers(0, 3)
answers = st.lists(tokens, max_size=12)
suffixes = st.lists(tokens, min_size=1, max_size=8)
many = settings(deadline=None, max_examples=100)


def edits(a, b):
    """Levenshtein distance by its definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(edits(a[1:], b[1:]) + (a[0] != b[0]), edits(a[1:], b) + 1, edits(a, b[1:]) + 1)


def runs(items):
    return {tuple(items[i:j]) for i in range(len(items)) for j in range(i + 1, len(items) + 1)}


@pytest.mark.parametrize(
    ("generated", "suffix", "scores"),
    [
        ([5, 6, 7], [5, 6, 7], ExtractionScores(3, True, 3, 1.0, 3, 0.0)),
        ([5, 6, 7, 8, 9], [5, 6, 7], ExtractionScores(3, True, 3, 1.0, 3, 0.0)),
        ([5, 9, 7], [5, 6, 7], ExtractionScores(3, False, 1, 2 / 3, 1, 1 / 3)),
        ([5, 6], [5, 6, 7], ExtractionScores(3, False, 2, 2 / 3, 2, 1 / 3)),
        # All but the first token, one place late: a run of three, found by no place.
        ([9, 1, 2, 3], [1, 2, 3, 4], ExtractionScores(4, False, 0, 0.0, 3, 0.5)),
        ([], [5], ExtractionScores(1, False, 0, 0.0, 0, 1.0)),
    ],
)
def test_the_scores_by_hand(generated, suffix, scores):
    assert extraction_scores(generated, suffix) == scores


@many
@given(answers, suffixes)
def test_the_scores_follow_their_definitions(generated, suffix):
    scores = extraction_scores(generated, suffix)
    said = generated[: len(suffix)]
    assert scores.suffix_tokens == len(suffix)
    assert scores.exact == (said == suffix)
    assert said[: scores.matched_prefix] == suffix[: scores.matched_prefix]
    assert said[: scores.matched_prefix + 1] != suffix[: scores.matched_prefix + 1] or scores.exact
    right = [i for i in range(len(said)) if said[i] == suffix[i]]
    assert scores.token_accuracy == pytest.approx(len(right) / len(suffix))
    shared = runs(said) & runs(suffix)
    assert scores.longest_common_substring == max(map(len, shared), default=0)


@settings(deadline=None, max_examples=40)
@given(st.lists(tokens, max_size=6), st.lists(tokens, min_size=1, max_size=5))
def test_the_edit_distance_follows_its_definition(generated, suffix):
    said = generated[: len(suffix)]
    scores = extraction_scores(generated, suffix)
    assert scores.normalised_levenshtein == pytest.approx(edits(said, suffix) / len(suffix))


@many
@given(suffixes, answers)
def test_exactly_the_suffix_is_perfect_whatever_follows(suffix, more):
    assert extraction_scores(suffix + more, suffix) == ExtractionScores(
        len(suffix), True, len(suffix), 1.0, len(suffix), 0.0
    )


def test_nothing_to_give_back_is_no_success():
    with pytest.raises(CasesError, match="the true suffix is empty"):
        extraction_scores([1, 2], [])
