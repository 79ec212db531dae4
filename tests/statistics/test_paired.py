"""Paired tests against SciPy and statsmodels (tables below), naive references and simulation."""

import itertools
import math
import random
from statistics import NormalDist, fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from pytest_llmprobe.statistics.paired import (
    EXACT_CLUSTERS,
    change_interval,
    clustered_mcnemar,
    effective_pairs,
    holm,
    mcnemar,
    recovery_interval,
    score_change,
)
from pytest_llmprobe.statistics.power import (
    bar_power,
    found_by_bar,
    mcnemar_power,
    minimum_detectable_change,
)

many = settings(deadline=None, max_examples=100)
few = settings(deadline=None, max_examples=30)
counts = st.integers(0, 300)
p_values = st.lists(st.floats(0, 1), max_size=12)

# lost, gained, statsmodels 0.15 stats.contingency_tables.mcnemar(exact=True).pvalue
MCNEMAR = [
    (0, 0, 1.0),
    (5, 0, 0.0625),
    (6, 0, 0.03125),
    (1, 7, 0.0703125),
    (12, 3, 0.03515625),
    (25, 25, 1.0),
    (26, 25, 1.0),
    (40, 61, 0.046044066929342785),
    (82, 38, 7.291502428713535e-05),
    (101, 12, 1.0769168220004768e-18),
    (18, 137, 7.504333825064524e-24),
    (24, 93, 8.889484446408732e-11),
    (149, 14, 1.137933626511795e-29),
    (129, 54, 2.9071977252339297e-08),
    (300, 400, 0.0001784763144856244),
    (1000, 900, 0.023108845108901193),
]

# p-values, statsmodels.stats.multitest.multipletests(method="holm")[1]
HOLM = [
    ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
    ([0.005, 0.5, 0.02, 0.02, 0.9], [0.025, 1.0, 0.08, 0.08, 1.0]),
    ([0.2, 0.6, 0.6], [0.6000000000000001, 1.0, 1.0]),
    ([0.001, 0.0001, 0.049, 1.0], [0.003, 0.0004, 0.098, 1.0]),
]

# seed of the data below, n; scipy.stats.bootstrap(method="percentile", n_resamples=200_000) bounds,
# scipy.stats.permutation_test(permutation_type="samples", n_resamples=inf).pvalue
SCORES = [
    (1, 8, -0.157646, 0.266844, 0.71875),
    (2, 12, -0.103699, 0.223517, 0.67333984375),
    (3, 40, -0.056051, 0.123950, 0.45838885402786494),
    (4, 160, 0.091644, 0.181269, 4.99998750003125e-06),
]


@st.composite
def clustered_changes(draw, most=10):
    n = draw(st.integers(1, most))
    changes = draw(st.lists(st.sampled_from([-1, -1, 0, 1]), min_size=n, max_size=n))
    clusters = draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    return changes, clusters


def score_differences(seed, n):
    generator = random.Random(seed)
    return [round(generator.gauss(0.1, 0.3), 6) for _ in range(n)]


def by_all_signs(parts):
    """The sign-flip test by trying every sign of every part."""
    observed = abs(sum(parts))
    totals = [
        abs(sum(s * p for s, p in zip(signs, parts, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(parts))
    ]
    return fmean(total >= observed - 1e-9 for total in totals)


def sums_of(values, clusters):
    return [
        sum(v for v, c in zip(values, clusters, strict=True) if c == cluster)
        for cluster in sorted(set(clusters))
    ]


# McNemar


@pytest.mark.parametrize(("lost", "gained", "p"), MCNEMAR)
def test_mcnemar_agrees_with_statsmodels(lost, gained, p):
    assert mcnemar(lost, gained) == pytest.approx(p, rel=1e-9, abs=1e-300)


@many
@given(st.integers(0, 7), st.integers(0, 7))
def test_mcnemar_counts_the_throws_that_are_as_uneven(lost, gained):
    uneven = abs(lost - gained)
    throws = itertools.product((-1, 1), repeat=lost + gained)
    assert mcnemar(lost, gained) == pytest.approx(fmean(abs(sum(t)) >= uneven for t in throws))


@many
@given(counts, counts)
def test_mcnemar_is_a_probability_that_does_not_depend_on_the_direction(lost, gained):
    assert 0 < mcnemar(lost, gained) <= 1
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


@many
@given(counts, counts)
def test_more_losses_than_gains_are_less_probable_the_more_there_are(lost, gained):
    more, most = lost + gained, lost + gained + 1
    assert mcnemar(most, gained) <= mcnemar(more, gained)


def test_six_flips_in_one_direction_are_needed():
    assert mcnemar(5, 0) == 0.0625
    assert mcnemar(6, 0) == 0.03125
    assert mcnemar(0, 0) == 1


def test_as_many_flips_as_a_large_suite_can_have_are_counted_exactly():
    assert mcnemar(10_000, 10_000) == 1
    assert mcnemar(20_000, 0) == 0  # below the smallest float
    assert mcnemar(300, 400) == pytest.approx(0.000179, rel=0.01)


# Clusters


@many
@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=60))
def test_with_a_cluster_for_each_case_the_clustered_test_is_mcnemars(changes):
    plain = mcnemar(changes.count(-1), changes.count(1))
    assert clustered_mcnemar(changes, range(len(changes))) == pytest.approx(plain, rel=1e-12)


@pytest.mark.parametrize("size", [2, 5])
def test_clusters_that_flip_as_one_count_as_little_more_than_one_case_each(size):
    flips = [-1] * 8 + [1] + [0] * 30
    changes = [change for change in flips for _ in range(size)]
    clusters = [n // size for n in range(len(changes))]
    together = clustered_mcnemar(changes, clusters)
    assert mcnemar(8, 1) <= together <= mcnemar(7, 1)
    assert together > mcnemar(8 * size, size)


@many
@given(clustered_changes(most=40))
def test_clusters_make_flips_no_more_surprising(case):
    changes, clusters = case
    plain = mcnemar(changes.count(-1), changes.count(1))
    assert clustered_mcnemar(changes, clusters) >= plain


@many
@given(clustered_changes(most=40))
def test_the_direction_and_the_order_do_not_matter(case):
    changes, clusters = case
    p = clustered_mcnemar(changes, clusters)
    assert clustered_mcnemar([-change for change in changes], clusters) == p
    assert clustered_mcnemar(changes[::-1], clusters[::-1]) == pytest.approx(p)


def test_a_loss_of_everything_is_seen_in_few_clusters_but_not_in_one():
    thirds = [n % 3 for n in range(15)]
    assert clustered_mcnemar([-1] * 15, thirds) == mcnemar(15, 0)
    assert clustered_mcnemar([-1] * 14 + [0], thirds) < 0.001
    assert clustered_mcnemar([-1] * 15, [0] * 15) == 1


# Holm


@pytest.mark.parametrize(("given_p", "adjusted"), HOLM)
def test_holm_agrees_with_statsmodels(given_p, adjusted):
    assert holm(given_p) == pytest.approx(adjusted, abs=1e-12)


@many
@given(p_values, st.floats(0.01, 0.5))
def test_holm_rejects_step_by_step(given_p, level):
    rejected = set()
    for rank, place in enumerate(sorted(range(len(given_p)), key=given_p.__getitem__)):
        if given_p[place] * (len(given_p) - rank) > level:
            break
        rejected.add(place)
    assert {place for place, p in enumerate(holm(given_p)) if p <= level} == rejected


def test_one_p_value_is_left_alone():
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


# The interval of a difference of rates


def test_the_interval_of_a_difference_by_hand():
    # 9 lost, 1 gained of 40: (10 + 2)/42, z sqrt((10/42 + 2/42 - (8/42)^2) / 42)
    low, high = change_interval([-1] * 9 + [1] + [0] * 30, range(40))
    half = NormalDist().inv_cdf(0.975) * math.sqrt((12 / 42 - (8 / 42) ** 2) / 42)
    assert (low, high) == pytest.approx((-8 / 42 - half, -8 / 42 + half))


def test_no_flip_at_all_is_not_certainty():
    low, high = change_interval([0] * 20, range(20))
    assert low == pytest.approx(-high)
    assert high > 0.1
    assert change_interval([0] * 200, range(200))[1] < high / 5


@many
@given(clustered_changes(most=30))
def test_the_interval_is_one_and_clusters_never_narrow_it(case):
    changes, clusters = case
    low, high = change_interval(changes, clusters)
    inner_low, inner_high = change_interval(changes, range(len(changes)))
    assert -1 <= low < high <= 1
    assert high - low >= min(inner_high - inner_low, 1.99) - 1e-9


@many
@given(clustered_changes(most=30))
def test_there_are_never_more_effective_pairs_than_pairs(case):
    changes, clusters = case
    assert 1 <= effective_pairs(changes, clusters) <= len(changes)


def test_clusters_that_agree_are_one_pair_each():
    assert effective_pairs([0] * 20, [n // 5 for n in range(20)]) == 4
    changes = [-1, 0, 1, 0, 0, -1, 0, 0]
    repeated = [change for change in changes for _ in range(5)]
    assert effective_pairs(repeated, [n // 5 for n in range(40)]) == pytest.approx(8, rel=0.2)


# Scores


@pytest.mark.parametrize(("seed", "n", "low", "high", "p"), SCORES)
def test_the_bootstrap_agrees_with_scipy_within_its_error(seed, n, low, high, p):
    found = score_change(score_differences(seed, n), range(n))
    assert found.ci95 == pytest.approx((low, high), abs=0.02 * (high - low))
    spread = math.sqrt(p * (1 - p) / 9_999)
    assert found.p == pytest.approx(p, abs=1e-9 if n <= EXACT_CLUSTERS else 5 * spread)


@few
@given(
    st.lists(st.integers(-20, 20), min_size=2, max_size=9), st.lists(st.integers(0, 4), min_size=9)
)
def test_up_to_a_few_clusters_the_test_of_a_score_tries_every_sign(tenths, clusters):
    differences, clusters = [t / 10 for t in tenths], clusters[: len(tenths)]
    found = score_change(differences, clusters, resamples=50)
    if len(set(clusters)) == 1:
        assert (found.ci95, found.p) == (None, 1)
    else:
        assert found.p == pytest.approx(by_all_signs(sums_of(differences, clusters)))
        assert found.ci95[0] <= found.ci95[1]
    assert (found.n, found.mean) == (len(differences), pytest.approx(fmean(differences)))


def test_resampling_whole_clusters_widens_the_interval():
    values = score_differences(5, 30)
    repeated = [value for value in values for _ in range(4)]
    alone = score_change(values, range(30)).ci95
    together = score_change(repeated, [n // 4 for n in range(120)]).ci95
    apart = score_change(repeated, range(120)).ci95
    assert together == pytest.approx(alone, abs=0.01)
    assert apart[1] - apart[0] < 0.6 * (together[1] - together[0])


def test_the_same_differences_in_another_order_give_the_same_result():
    values = score_differences(6, 40)
    shuffled = random.Random(1).sample(list(enumerate(values)), 40)
    clusters = [n // 2 for n in range(40)]
    first = score_change(values, clusters)
    second = score_change([v for _, v in shuffled], [clusters[i] for i, _ in shuffled])
    assert (first.ci95, first.p) == (second.ci95, second.p)
    assert score_change(values, clusters, seed=1).ci95 != first.ci95


def test_scores_that_did_not_change_are_no_finding():
    found = score_change([0.0] * 30, range(30))
    assert (found.mean, found.ci95, found.p) == (0, (0, 0), 1)


# What can be found


def power_by_all_outcomes(n, change, discordance, level):
    lost, gained = (discordance + change) / 2, (discordance - change) / 2
    return sum(
        math.comb(n, a) * math.comb(n - a, b) * lost**a * gained**b * (1 - lost - gained) ** c
        for a in range(n + 1)
        for b in range(n - a + 1)
        for c in [n - a - b]
        if mcnemar(a, b) < level
    )


@few
@given(st.integers(1, 30), st.floats(0.01, 1), st.floats(0, 1), st.sampled_from([0.05, 0.01]))
def test_the_power_is_that_of_every_possible_outcome(n, discordance, part, level):
    change = discordance * part
    expected = power_by_all_outcomes(n, change, discordance, level)
    assert mcnemar_power(n, change, discordance, level) == pytest.approx(expected, abs=1e-9)


def test_a_drop_of_five_points_at_400_cases_is_found_nine_times_in_ten():
    generator = np.random.default_rng(0)
    outcomes = generator.multinomial(400, [0.075, 0.025, 0.9], size=2_000)
    found = fmean(mcnemar(int(lost), int(gained)) < 0.05 for lost, gained, _ in outcomes)
    assert found == pytest.approx(mcnemar_power(400, 0.05, 0.10), abs=0.03)


@pytest.mark.parametrize(("n", "discordance"), [(6, 0), (20, 0), (36, 0.2), (100, 0.1), (400, 0.1)])
def test_the_minimum_detectable_change_is_the_smallest_that_is_found(n, discordance):
    change = minimum_detectable_change(n, discordance)
    below = change - 0.0002
    assert mcnemar_power(n, change, max(discordance, change)) >= 0.8
    assert mcnemar_power(n, below, max(discordance, below)) < 0.8


def test_five_pairs_can_show_nothing():
    assert minimum_detectable_change(5) is None
    assert minimum_detectable_change(0) is None
    assert minimum_detectable_change(6) > 0.9
    assert minimum_detectable_change(6, level=0.01) is None


def test_more_pairs_and_a_looser_level_find_smaller_changes():
    changes = [minimum_detectable_change(n, 0.1) for n in (50, 100, 200, 400)]
    assert changes == sorted(changes, reverse=True)
    assert minimum_detectable_change(100, 0.1, level=0.05 / 13) > minimum_detectable_change(
        100, 0.1
    )


# False alarms


@pytest.mark.parametrize(("groups", "together"), [(40, 1), (20, 5), (6, 6)])
def test_equal_models_are_told_apart_no_more_often_than_one_time_in_twenty(groups, together):
    generator = random.Random(3)
    alarms = 0
    for _ in range(400):
        heads = [generator.choice([-1, 0, 0, 1]) for _ in range(groups)]
        changes = [change for change in heads for _ in range(together)]
        clusters = [n // together for n in range(len(changes))]
        alarms += clustered_mcnemar(changes, clusters) < 0.05
    assert alarms / 400 <= 0.05


# Recovery


def outcomes(both, lost, gained, neither):
    before = [True] * (both + lost) + [False] * (gained + neither)
    after = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return before, after


@pytest.mark.parametrize("table", [(80, 5, 3, 12), (20, 0, 0, 0), (5, 9, 1, 40), (300, 60, 2, 38)])
def test_the_interval_of_a_recovery_holds_the_ratios_that_a_test_does_not_reject(table):
    low, high = recovery_interval(*outcomes(*table), range(sum(table)))
    both, lost, gained, neither = (table[0], table[1] + 1, table[2] + 1, table[3])
    n = both + lost + gained + neither
    before = np.repeat([1.0, 1.0, 0.0, 0.0], [both, lost, gained, neither])
    after = np.repeat([1.0, 0.0, 1.0, 0.0], [both, lost, gained, neither])
    for ratio in np.linspace(0, 3, 3001):
        contrast = after - ratio * before
        z = contrast.mean() / (contrast.std() / math.sqrt(n))
        if abs(abs(z) - 1.959964) > 0.01:
            assert (abs(z) < 1.959964) == (low < ratio < high)


def test_a_recovery_from_hardly_anything_could_be_any():
    assert recovery_interval(*outcomes(1, 0, 0, 30), range(31)) is None
    assert recovery_interval(*outcomes(0, 0, 4, 30), range(34)) is None


@pytest.mark.parametrize(("rate", "kept"), [(0.95, 1.0), (0.8, 0.9), (0.5, 0.98), (0.5, 0.5)])
def test_the_interval_of_a_recovery_covers(rate, kept):
    random = np.random.default_rng(7)
    held = 0
    for _ in range(400):
        before = random.random(120) < rate
        after = before & (random.random(120) < kept)
        interval = recovery_interval(before.tolist(), after.tolist(), range(120))
        held += interval is not None and interval[0] <= kept <= interval[1]
    assert held / 400 >= 0.93


def test_the_noise_of_runs_widens_the_interval_of_a_recovery():
    table = outcomes(80, 5, 3, 12)
    low, high = recovery_interval(*table, range(100))
    wider = recovery_interval(*table, range(100), noise=0.05)
    assert wider[0] < low < high < wider[1]
    grouped = recovery_interval(*table, [n // 10 for n in range(100)])
    assert grouped[1] - grouped[0] > high - low


@pytest.mark.parametrize("n", [1, 9, 33, 160])
@pytest.mark.parametrize("bar", [0.01, 0.25, 0.3, 0.95, 1.0])
def test_a_bars_power_is_the_binomials_below_it(n, bar):
    below = [passed for passed in range(n + 1) if passed / n < bar]
    for rate in (0.0, 0.1, 0.5, 0.97, 1.0):
        expected = binom.pmf(below, n, rate).sum()
        assert bar_power(n, bar, rate) == pytest.approx(expected, abs=1e-9)
    found = found_by_bar(n, bar)
    assert bar_power(n, bar, found) >= 0.8 > bar_power(n, bar, found + 0.001)


def test_a_bar_of_nothing_finds_nothing():
    assert (bar_power(9, 0.0, 0.0), found_by_bar(9, 0.0)) == (0.0, None)
