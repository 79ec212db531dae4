"""Intervals against published values and against what they must be by definition."""

import math
from statistics import NormalDist, fmean, stdev

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from pytest_llmprobe.statistics.intervals import (
    clustered_standard_error,
    effective_size,
    mean_interval,
    rate_interval,
    wilson,
)

many = settings(deadline=None, max_examples=150)
Z95 = 1.959963984540054
counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
confidences = st.floats(0.5, 0.999)


@st.composite
def clustered_outcomes(draw):
    """Outcomes with the cluster of each."""
    n = draw(st.integers(1, 40))
    passed = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    clusters = draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))
    return passed, clusters


def width(interval):
    return interval[1] - interval[0]


@pytest.mark.parametrize(
    ("passed", "n", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_values_of_newcombes_table(passed, n, low, high):
    assert wilson(passed, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_five_in_ten_by_hand():
    # centre 1/2, half width z / (1 + z^2/10) * sqrt(1/40 + z^2/400)
    half = Z95 / (1 + Z95**2 / 10) * math.sqrt(1 / 40 + Z95**2 / 400)
    assert wilson(5, 10) == pytest.approx((0.5 - half, 0.5 + half))
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=5e-5)


@many
@given(counts, confidences)
def test_wilson_contains_the_rate_and_stays_a_probability(count, confidence):
    passed, n = count
    low, high = wilson(passed, n, confidence)
    assert 0 <= low <= passed / n <= high <= 1
    assert low < high


@many
@given(counts, confidences)
def test_each_bound_is_the_rate_that_the_score_test_just_rejects(count, confidence):
    passed, n = count
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    for bound in wilson(passed, n, confidence):
        distance = abs(passed / n - bound)
        assert distance == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), abs=1e-9)


@many
@given(counts, confidences)
def test_passes_and_misses_are_treated_alike(count, confidence):
    passed, n = count
    low, high = wilson(passed, n, confidence)
    assert wilson(n - passed, n, confidence) == pytest.approx((1 - high, 1 - low))


@many
@given(counts, st.integers(2, 10))
def test_more_cases_at_the_same_rate_narrow_the_interval(count, times):
    passed, n = count
    (low, high), (inner_low, inner_high) = wilson(passed, n), wilson(times * passed, times * n)
    assert low <= inner_low + 1e-12
    assert inner_high <= high + 1e-12
    assert width((inner_low, inner_high)) < width((low, high))


@many
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))))
def test_one_more_pass_raises_both_bounds(count):
    passed, n = count
    low, high = wilson(passed, n)
    higher_low, higher_high = wilson(passed + 1, n)
    assert low < higher_low
    assert high < higher_high or higher_high == 1


@many
@given(counts)
def test_more_confidence_widens_the_interval(count):
    assert width(wilson(*count, 0.8)) < width(wilson(*count, 0.95)) < width(wilson(*count, 0.99))


@many
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=40))
def test_with_a_cluster_for_each_value_the_standard_error_is_the_ordinary_one(values):
    ordinary = stdev(values) / math.sqrt(len(values))
    assert clustered_standard_error(values, range(len(values))) == pytest.approx(ordinary, abs=1e-9)


def test_the_clustered_standard_error_by_hand():
    # mean 1/2; residuals sum to 1, -1/2 and -1/2 per cluster; sqrt(1.5 * 3/2) / 6
    values, clusters = [1, 1, 0, 1, 0, 0], ["a", "a", "b", "b", "b", "c"]
    assert clustered_standard_error(values, clusters) == pytest.approx(math.sqrt(2.25) / 6)


def test_one_cluster_says_nothing_about_spread():
    assert clustered_standard_error([0.2, 0.7, 0.9], "aaa") == math.inf


def test_values_and_clusters_of_different_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        clustered_standard_error([0.0, 1.0], ["a"])


@many
@given(counts)
def test_with_a_cluster_for_each_case_the_clustered_interval_is_the_ordinary_one(count):
    passed, n = min(count[0], 60), min(count[1], 60)
    outcomes = [i < passed for i in range(n)]
    assert rate_interval(outcomes, range(n)) == pytest.approx(wilson(sum(outcomes), n))


@many
@given(clustered_outcomes())
def test_clusters_never_narrow_the_interval_and_never_push_the_rate_out_of_it(outcomes):
    passed, clusters = outcomes
    low, high = rate_interval(passed, clusters)
    rate = sum(passed) / len(passed)
    assert 0 <= low <= rate + 1e-12
    assert rate - 1e-12 <= high <= 1
    assert width((low, high)) >= width(wilson(sum(passed), len(passed))) - 1e-12


@many
@given(st.lists(st.booleans(), min_size=3, max_size=15), st.integers(2, 6))
def test_clusters_that_agree_count_as_one_case_each(verdicts, copies):
    passed = [verdict for verdict in verdicts for _ in range(copies)]
    clusters = [n for n in range(len(verdicts)) for _ in range(copies)]
    effective, kish = effective_size([float(p) for p in passed], clusters)
    assert (effective, kish) == (pytest.approx(len(verdicts)), len(verdicts))
    clustered = rate_interval(passed, clusters)
    # the score test at Student's quantile with G + 1 degrees of freedom rejects beyond the bounds
    rate, t = fmean(verdicts), stats.t.ppf(0.975, len(verdicts) + 1)
    for bound in clustered:
        error = math.sqrt(bound * (1 - bound) / len(verdicts))
        assert abs(rate - bound) == pytest.approx(t * error, abs=1e-9)


def test_clusters_that_show_no_correlation_are_believed_by_half():
    effective, kish = effective_size([1.0, 0.0] * 10, [n // 2 for n in range(20)])
    # correlation (9 * 0 + 10 * 1) / 19, design effect 1 + 10 / 19
    assert (effective, kish) == (pytest.approx(20 / (1 + 10 / 19)), 10)


def test_one_cluster_alone_has_the_plain_interval():
    nine = [n < 9 for n in range(32)]
    assert rate_interval(nine, ["states"] * 32) == wilson(9, 32)


@pytest.mark.parametrize("verdict", [True, False])
def test_where_all_agree_a_cluster_counts_as_one_case(verdict):
    clusters = [n // 4 for n in range(20)]
    assert effective_size([float(verdict)] * 20, clusters) == (pytest.approx(5), 5)


def test_clusters_of_unlike_sizes_count_as_fewer():
    clusters = [*range(10), *["big"] * 10]
    assert effective_size([1.0, 0.0] * 10, clusters)[1] == pytest.approx(400 / 110)


def drawn(generator, kind, rate, correlation, groups, size):
    """Outcomes of cases, (groups, size), whose luck is partly their cluster's."""
    if kind == "beta":
        weight = (1 - correlation) / correlation
        rates = generator.beta(rate * weight, (1 - rate) * weight, size=groups)
    else:  # a case has its cluster's own luck with the root of the correlation
        shared = math.sqrt(correlation)
        rates = (generator.random(groups) < rate) * shared + (1 - shared) * rate
    return generator.random((groups, size)) < rates[:, None]


@pytest.mark.parametrize("kind", ["beta", "shared"])
@pytest.mark.parametrize(("groups", "size"), [(2, 16), (5, 10), (12, 5), (30, 3)])
@pytest.mark.parametrize(("rate", "correlation"), [(0.05, 0.9), (0.5, 0.3), (0.9, 0.6)])
def test_the_interval_holds_the_true_rate(kind, groups, size, rate, correlation):
    generator = np.random.default_rng(0)
    clusters = [n // size for n in range(groups * size)]
    held = 0
    for _ in range(150):
        low, high = rate_interval(
            drawn(generator, kind, rate, correlation, groups, size).ravel().tolist(), clusters
        )
        held += low <= rate <= high
    assert held / 150 >= 0.92  # .93 less the error of so few; tests/benchmarks has the whole table


@many
@given(clustered_outcomes())
def test_the_mean_of_a_yes_or_no_score_has_the_interval_of_a_rate(outcomes):
    passed, clusters = outcomes
    assert mean_interval([float(p) for p in passed], clusters) == rate_interval(passed, clusters)


def test_the_interval_of_a_graded_score_by_hand():
    half = stats.t.ppf(0.975, 2) * stdev([0.2, 0.4, 0.9]) / math.sqrt(3)
    assert mean_interval([0.2, 0.4, 0.9], "abc") == pytest.approx((0.5 - half, 0.5 + half))


@many
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30), st.integers(2, 4))
def test_repeating_each_graded_value_in_its_cluster_does_not_make_it_more_certain(values, copies):
    assume(not all(value in (0.0, 1.0) for value in values))
    alone = mean_interval(values, range(len(values)))
    repeated = mean_interval(
        [value for value in values for _ in range(copies)],
        [n for n in range(len(values)) for _ in range(copies)],
    )
    assert repeated == pytest.approx(alone, abs=1e-9)
    assert alone[0] - 1e-9 <= fmean(values) <= alone[1] + 1e-9


def test_a_graded_score_of_one_cluster_has_no_interval():
    assert mean_interval([0.25, 0.75], "aa") is None
    assert mean_interval([0.25], "a") is None
