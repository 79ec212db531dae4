"""Each measure against its definition, written down naively."""

import math
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.statistics.similarity import (
    cosine,
    dice,
    hamming,
    jaccard,
    kl_divergence,
    levenshtein,
    longest_common_substring,
    matched_prefix,
    normalised_levenshtein,
    sliding_hamming,
)

many = settings(deadline=None, max_examples=100)
items = st.one_of(st.text("abc", max_size=9), st.lists(st.integers(0, 3), max_size=9))
pairs = st.one_of(
    st.tuples(st.text("abc", max_size=9), st.text("abc", max_size=9)),
    st.tuples(*[st.lists(st.integers(0, 3), max_size=9)] * 2),
)
EVERY = [
    cosine,
    dice,
    jaccard,
    kl_divergence,
    levenshtein,
    longest_common_substring,
    matched_prefix,
    normalised_levenshtein,
    sliding_hamming,
]
SYMMETRIC = [measure for measure in EVERY if measure is not kl_divergence]


def edits(a, b):
    @cache
    def distance(i, j):
        if not i or not j:
            return i + j
        return min(
            distance(i - 1, j) + 1,
            distance(i, j - 1) + 1,
            distance(i - 1, j - 1) + (a[i - 1] != b[j - 1]),
        )

    return distance(len(a), len(b))


def windows(items, n):
    return [list(items[i : i + n]) for i in range(len(items) - n + 1)]


@many
@given(pairs)
def test_levenshtein_is_the_least_number_of_edits(pair):
    assert levenshtein(*pair) == edits(*pair)
    assert normalised_levenshtein(*pair) == edits(*pair) / (max(map(len, pair)) or 1)


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("kitten", "sitting", 3), ("saturday", "sunday", 3), ("", "abc", 3), ("abc", "", 3)],
)
def test_levenshtein_of_the_textbook(a, b, distance):
    assert levenshtein(a, b) == distance
    assert normalised_levenshtein(a, b) == distance / max(len(a), len(b))


def test_levenshtein_of_a_thousand_tokens():
    tokens = np.random.default_rng(0).integers(0, 50_000, 1000).tolist()
    changed = [-1, *tokens[:300], *tokens[310:700], -2, *tokens[700:]]
    assert levenshtein(tokens, changed) == 12
    assert levenshtein(tokens, [-1] * 1000) == 1000


@many
@given(pairs)
def test_hamming_counts_the_places_that_differ(pair):
    n = min(map(len, pair))
    a, b = pair[0][:n], pair[1][:n]
    assert hamming(a, b) == sum(a[i] != b[i] for i in range(n))


def test_hamming_of_different_lengths_is_refused():
    with pytest.raises(CasesError, match="3 and 2 items: use sliding_hamming"):
        hamming("abc", "ab")


@many
@given(pairs)
def test_sliding_hamming_is_the_least_over_all_windows(pair):
    short, long = sorted(pair, key=len)
    naive = min(hamming(list(short), window) for window in windows(long, len(short)))
    assert sliding_hamming(*pair) == naive


def test_sliding_hamming_finds_a_needle():
    assert sliding_hamming("needle", "hay needle hay") == 0
    assert sliding_hamming("hay noodle hay", "needle") == 2
    assert sliding_hamming("", "abc") == 0


@many
@given(pairs)
def test_jaccard_and_dice_count_shared_items(pair):
    a, b = map(set, pair)
    if a or b:
        assert jaccard(*pair) == len(a & b) / len(a | b)
        assert dice(*pair) == 2 * len(a & b) / (len(a) + len(b))
        assert dice(*pair) == pytest.approx(2 * jaccard(*pair) / (1 + jaccard(*pair)))
    else:
        assert jaccard(*pair) == dice(*pair) == 1


@many
@given(pairs)
def test_cosine_is_that_of_the_vectors_of_counts(pair):
    a, b = map(Counter, pair)
    vocabulary = sorted({*a, *b})
    x, y = (np.array([counts[item] for item in vocabulary], dtype=float) for counts in (a, b))
    norms = np.linalg.norm(x) * np.linalg.norm(y)
    naive = x @ y / norms if norms else float(not a and not b)
    assert cosine(*pair) == pytest.approx(naive)
    assert 0 <= cosine(*pair) <= 1


@many
@given(pairs, st.floats(0.01, 10))
def test_kl_is_the_expected_log_ratio_of_the_smoothed_frequencies(pair, alpha):
    a, b = pair
    vocabulary = {*a, *b}
    naive = 0.0
    for item in vocabulary:
        p = (list(a).count(item) + alpha) / (len(a) + alpha * len(vocabulary))
        q = (list(b).count(item) + alpha) / (len(b) + alpha * len(vocabulary))
        naive += p * math.log(p / q)
    assert kl_divergence(a, b, alpha) == pytest.approx(naive, abs=1e-12)
    assert kl_divergence(a, b, alpha) >= 0


def test_kl_by_hand():
    # p = 3/4, 1/4 and q = 1/4, 3/4 after Laplace's rule
    assert kl_divergence("aa", "bb") == pytest.approx(math.log(3) / 2)
    # an empty sequence is uniform: 1/2, 1/2 against 3/5, 2/5
    assert kl_divergence("", "aab") == pytest.approx(math.log(25 / 24) / 2)
    assert kl_divergence("aab", "") == pytest.approx(0.6 * math.log(1.2) + 0.4 * math.log(0.8))
    assert kl_divergence("", "") == 0


@pytest.mark.parametrize("alpha", [0, -1, math.nan, math.inf])
def test_kl_needs_smoothing(alpha):
    with pytest.raises(SettingsError, match="above 0"):
        kl_divergence("a", "b", alpha)


@many
@given(pairs)
def test_the_longest_common_substring_is_a_window_of_both(pair):
    a, b = pair
    naive = max(
        n
        for n in range(min(len(a), len(b)) + 1)
        if n == 0 or any(window in windows(b, n) for window in windows(a, n))
    )
    assert longest_common_substring(a, b) == naive


@many
@given(pairs)
def test_the_matched_prefix_ends_at_the_first_difference(pair):
    a, b = map(list, pair)
    n = matched_prefix(*pair)
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]


@many
@given(pairs)
def test_the_order_of_the_two_does_not_matter(pair):
    a, b = pair
    for measure in SYMMETRIC:
        assert measure(a, b) == measure(b, a)


@many
@given(items)
def test_a_sequence_is_most_like_itself(a):
    for distance in (levenshtein, normalised_levenshtein, hamming, sliding_hamming, kl_divergence):
        assert distance(a, a) == 0
    for likeness in (jaccard, dice, cosine):
        assert likeness(a, a) == pytest.approx(1)
    for length in (longest_common_substring, matched_prefix):
        assert length(a, a) == len(a)


@pytest.mark.parametrize(
    ("measure", "both", "one"),
    [
        (levenshtein, 0, 2),
        (normalised_levenshtein, 0, 1),
        (sliding_hamming, 0, 0),
        (jaccard, 1, 0),
        (dice, 1, 0),
        (cosine, 1, 0),
        (longest_common_substring, 0, 0),
        (matched_prefix, 0, 0),
    ],
)
def test_empty_sequences_have_documented_values(measure, both, one):
    assert measure("", "") == measure([], []) == both
    assert measure("", "ab") == measure("ab", "") == one


@many
@given(st.lists(st.integers(0, 3), max_size=9), st.lists(st.integers(0, 3), max_size=9))
def test_lists_arrays_and_tuples_give_the_same_built_in_numbers(a, b):
    for measure in EVERY:
        value = measure(a, b)
        assert type(value) in (int, float)
        assert measure(np.array(a, dtype=np.int64), tuple(b)) == value
