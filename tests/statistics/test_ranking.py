"""ROC measures against counting all pairs, their intervals against drawing resamples out."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.statistics import ranking
from pytest_llmprobe.statistics.intervals import wilson
from pytest_llmprobe.statistics.ranking import (
    cautious_roc_auc_interval,
    roc_auc,
    roc_auc_interval,
    true_positive_rate,
)

many = settings(deadline=None, max_examples=100)
scores = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=15)
rates = st.sampled_from([0.0, 0.01, 0.1, 0.25, 0.29, 0.5, 0.99])


def pairs_won(positive, negative):
    won = sum((p > n) + (p == n) / 2 for p in positive for n in negative)
    return won / (len(positive) * len(negative))


def shifted(n, shift, seed, digits=1):
    rng = random.Random(seed)
    return [round(rng.gauss(shift, 1), digits) for _ in range(n)]


def drawn_out(positive, negative, statistic, resamples=3000):
    """The percentile bootstrap as the book has it."""
    rng = random.Random(1)
    values = [
        statistic(rng.choices(positive, k=len(positive)), rng.choices(negative, k=len(negative)))
        for _ in range(resamples)
    ]
    return tuple(np.quantile(values, [0.025, 0.975]))


@many
@given(scores, scores)
def test_the_area_is_the_share_of_pairs_in_the_right_order(positive, negative):
    assert roc_auc(positive, negative) == pytest.approx(pairs_won(positive, negative))
    assert roc_auc(negative, positive) == pytest.approx(1 - pairs_won(positive, negative))


@many
@given(scores, scores, st.integers(0, 99))
def test_the_interval_depends_on_ranks_and_seed_only(positive, negative, seed):
    low, high = roc_auc_interval(positive, negative, resamples=50, seed=seed)
    assert 0 <= low <= high <= 1
    warped = [[math.exp(3 * score) for score in group] for group in (positive, negative)]
    warped = [random.Random(seed).sample(group, len(group)) for group in warped]
    assert roc_auc_interval(*warped, resamples=50, seed=seed) == (low, high)


@pytest.mark.parametrize(("n", "shift"), [(12, 0), (40, 1), (80, 2)])
def test_the_interval_is_that_of_resamples_drawn_out(n, shift):
    positive, negative = shifted(n, shift, 1), shifted(n // 2, 0, 2)
    naive = drawn_out(positive, negative, roc_auc)
    assert roc_auc_interval(positive, negative, resamples=5000) == pytest.approx(naive, abs=0.02)


def test_the_interval_is_the_same_in_small_portions(monkeypatch):
    positive, negative = shifted(30, 1, 1, digits=9), shifted(30, 0, 2, digits=9)
    whole = roc_auc_interval(positive, negative)
    monkeypatch.setattr(ranking, "DRAWS_AT_ONCE", 60 * 7)
    assert roc_auc_interval(positive, negative) == pytest.approx(whole, abs=0.02)


def test_the_interval_narrows_with_more_scores_and_less_confidence():
    few = roc_auc_interval(shifted(20, 1, 1), shifted(20, 0, 2))
    some = roc_auc_interval(shifted(500, 1, 1), shifted(500, 0, 2))
    less = roc_auc_interval(shifted(500, 1, 1), shifted(500, 0, 2), confidence=0.5)
    assert few[1] - few[0] > 2 * (some[1] - some[0]) > 4 * (less[1] - less[0])


def test_the_interval_has_no_width_where_the_groups_do_not_overlap():
    assert roc_auc_interval([2, 3], [0, 1]) == (1, 1)
    assert roc_auc_interval([0, 1], [2, 3]) == (0, 0)


@many
@given(scores, scores, rates)
def test_the_threshold_is_the_lowest_negative_that_lets_few_enough_through(
    positive, negative, rate
):
    point = true_positive_rate(positive, negative, rate, resamples=20)
    within = [
        threshold
        for threshold in negative
        if sum(n > threshold for n in negative) * 100 <= round(rate * 100) * len(negative)
    ]
    assert point.threshold == min(within)
    assert point.false_positive_rate == sum(n > min(within) for n in negative) / len(negative)
    assert point.true_positive_rate == sum(p > min(within) for p in positive) / len(positive)
    assert point.false_positive_rate <= rate
    assert 0 <= point.interval[0] <= point.true_positive_rate <= point.interval[1] <= 1


def test_the_rate_by_hand():
    negative = [float(score) for score in range(100)]
    point = true_positive_rate([97, 98, 98.5, 120], negative, 0.01)
    assert (point.threshold, point.false_positive_rate) == (98, 0.01)
    assert point.true_positive_rate == 0.5


def test_scores_at_the_threshold_are_negative():
    assert true_positive_rate([1, 1, 2], [0, 1, 1, 1], 0.5).true_positive_rate == 1 / 3
    assert true_positive_rate([1, 1, 1], [1, 1, 1, 1], 0.5).true_positive_rate == 0


def test_few_negatives_allow_no_false_positive():
    point = true_positive_rate([4, 6, 7], [1, 2, 5], 0.01)
    assert (point.threshold, point.false_positive_rate) == (5, 0)
    assert point.true_positive_rate == 2 / 3


@pytest.mark.parametrize(("n", "rate"), [(40, 0.1), (150, 0.02), (30, 0.01)])
def test_the_rates_interval_holds_resamples_and_sampling(n, rate):
    positive, negative = shifted(60, 1, 3), shifted(n, 0, 4)

    def found(positive, negative):
        return true_positive_rate(positive, negative, rate, resamples=1).true_positive_rate

    low, high = drawn_out(positive, negative, found)
    point = true_positive_rate(positive, negative, rate, resamples=5000)
    sampling = wilson(point.true_positive_rate * 60, 60)
    expected = (min(low, sampling[0]), max(high, sampling[1]))
    assert point.interval == pytest.approx(expected, abs=0.025)


def test_a_rate_of_none_or_all_has_an_interval_with_width():
    none = true_positive_rate([0, 1] * 5, [2, 3] * 5)
    assert none.true_positive_rate == 0
    assert none.interval == pytest.approx(wilson(0, 10))
    everything = true_positive_rate([4, 5] * 5, [2, 3] * 5)
    assert everything.interval == pytest.approx(wilson(10, 10))


def test_the_same_seed_gives_the_same_interval():
    groups = shifted(30, 1, 5), shifted(40, 0, 6)
    assert true_positive_rate(*groups, seed=3) == true_positive_rate(*groups, seed=3)
    assert roc_auc_interval(*groups, seed=3) == roc_auc_interval(*groups, seed=3)
    assert roc_auc_interval(*groups, seed=3) != roc_auc_interval(*groups, seed=4)


@pytest.mark.parametrize("function", [roc_auc, roc_auc_interval, true_positive_rate])
@pytest.mark.parametrize("groups", [([], [1]), ([1], []), ([1, math.nan], [1]), ([1], [math.nan])])
def test_a_group_without_numbers_is_refused(function, groups):
    with pytest.raises(CasesError, match="needs numbers"):
        function(*groups)


@pytest.mark.parametrize("rate", [-0.1, 1, math.nan])
def test_an_impossible_false_positive_rate_is_refused(rate):
    with pytest.raises(SettingsError, match="false-positive rate"):
        true_positive_rate([1], [1], rate)


def test_infinite_scores_have_an_order_too():
    assert roc_auc([math.inf, 1], [-math.inf, 1]) == 0.875
    assert true_positive_rate([math.inf], [-math.inf]).true_positive_rate == 1


@pytest.mark.parametrize(("counts", "draws"), [((20, 20), 120), ((50, 39), 80), ((16, 4), 120)])
def test_groups_that_are_alike_are_told_apart_no_more_often_than_one_time_in_twenty(counts, draws):
    random = np.random.default_rng(3)
    groups = [[random.normal(size=n) for n in counts] for _ in range(draws)]
    found = sum(cautious_roc_auc_interval(*both)[0] > 0.5 for both in groups)
    assert found <= 0.05 * draws
    apart = sum(cautious_roc_auc_interval(a + 4, b)[0] > 0.5 for a, b in groups[:20])
    assert apart >= 10


def test_few_scores_that_do_not_overlap_are_no_certainty():
    low, high = cautious_roc_auc_interval([2.0, 3.0], [1.0])
    assert (low < 0.5, high) == (True, 1.0)
