"""The gate over a suite: what it must find, and how often it is wrong in simulation."""

import math

import numpy as np
import pytest

from pytest_llmprobe.statistics.clusters import Flips
from pytest_llmprobe.statistics.suite_test import LEVEL, SUITE_LEVEL, compare_suite


def steady(groups, size=1):
    return Flips([size] * groups, [0] * groups, [0] * groups)


def lost(sizes, counts):
    return Flips(sizes, counts, [0] * len(sizes))


def judged(experiments, passed=None, families=None):
    passed = dict.fromkeys(experiments, 50) | (passed or {})
    return compare_suite(experiments, passed, families)


def test_an_experiment_alone_has_the_whole_level_and_no_suite():
    tests, suite, _ = judged({"a": lost([1] * 20, [1] * 6 + [0] * 14)})
    assert suite is None
    assert (tests["a"].level, tests["a"].p, tests["a"].found) == (LEVEL, 0.03125, True)


def test_one_of_several_has_the_suites_part_less_until_the_suite_is_worse():
    six = lost([1] * 20, [1] * 6 + [0] * 14)
    tests, suite, _ = judged({"a": six, "b": steady(30)})
    assert tests["a"].level == LEVEL - SUITE_LEVEL or suite.worse
    eight = lost([1] * 20, [1] * 8 + [0] * 12)
    tests, suite, _ = judged({"a": eight, "b": steady(30)})
    assert suite.worse
    assert tests["a"].level == LEVEL


def test_a_little_in_every_experiment_is_found_by_the_suite_alone():
    one = lost([1] * 50, [1] + [0] * 49)
    tests, suite, _ = judged({str(n): one for n in range(20)})
    assert not any(test.found for test in tests.values())
    assert (suite.worse, suite.lost) == (True, 20)
    assert suite.p == pytest.approx(2.0**-20)


def test_few_clusters_are_judged_with_the_suite_and_many_by_themselves():
    tests, suite, _ = judged({"few": steady(3, 5), "many": steady(40, 5), "big": steady(100)})
    assert {name: test.method for name, test in tests.items()} == {
        "few": "suite",
        "many": "clusters",
        "big": "clusters",
    }
    assert suite.able


def test_what_no_outcome_could_show_is_no_test():
    tests, suite, _ = judged({"a": steady(2, 50), "b": steady(2, 50)})
    assert {test.method for test in tests.values()} == {"suite"}
    assert not suite.able


def test_five_small_experiments_that_fall_to_0_are_lost_outright():
    small = {f"s{n}": lost([5] * 3, [3, 3, 2]) for n in range(5)}
    tests, *_ = judged(small | {"rest": steady(200)}, dict.fromkeys(small, 0))
    assert all(tests[name].all_lost and tests[name].found for name in small)
    assert not tests["rest"].found


def test_an_experiment_with_a_test_of_its_own_must_lose_more_to_be_lost_outright():
    for count, found in ((6, False), (7, True)):
        fall = lost([1] * 30, [1] * count + [0] * 23 + [0] * (7 - count))
        others = {str(n): Flips([1] * 40, [1] + [0] * 39, [0, 1, 1] + [0] * 37) for n in range(19)}
        tests, *_ = judged(others | {"a": fall}, {"a": 0})
        assert tests["a"].method == "clusters"
        assert tests["a"].found is found
    alone, *_ = judged({"a": lost([1] * 8, [1] * 5 + [0] * 3)}, {"a": 0})
    assert alone["a"].all_lost


def test_four_lost_cases_or_one_that_still_passes_are_not_all():
    few = {"a": lost([4], [4]), "b": lost([9], [8])}
    tests, *_ = judged(few | {"rest": steady(200)}, {"a": 0, "b": 1})
    assert not tests["a"].found
    assert not tests["b"].found


def test_a_lucky_cluster_that_is_lost_again_is_no_collapse_where_others_do_the_same():
    generator = np.random.default_rng(0)
    lucky = lost([20] * 5, [20, 0, 0, 0, 0])
    noisy = {}
    for n in range(10):
        direction = generator.integers(-1, 2, 5)
        noisy[str(n)] = Flips([20] * 5, 20 * (direction < 0), 20 * (direction > 0))
    tests, *_ = judged(noisy | {"lucky": lucky}, {"lucky": 0})
    assert not tests["lucky"].found
    tests, *_ = judged({"rest": steady(200), "lucky": lucky}, {"lucky": 0})
    assert tests["lucky"].found


def rates_of(generator, kind, rate, correlation, groups):
    if correlation == 0:
        return np.full(groups, rate)
    if kind == "beta":
        weight = (1 - correlation) / correlation
        return generator.beta(rate * weight, (1 - rate) * weight, size=groups)
    shared = math.sqrt(correlation)
    return (generator.random(groups) < rate) * shared + (1 - shared) * rate


def alike(generator, kind, rate, correlation, groups, size):
    """Flips of two runs of one model, each with luck of its own."""
    first, second = (
        generator.random((groups, size))
        < rates_of(generator, kind, rate, correlation, groups)[:, None]
        for _ in range(2)
    )
    flips = Flips(
        [size] * groups,
        (first & ~second).sum(axis=1).tolist(),
        (second & ~first).sum(axis=1).tolist(),
    )
    return flips, int(second.sum())


@pytest.mark.parametrize("kind", ["beta", "shared"])
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("experiments", [1, 6])
def test_equal_models_fail_no_more_often_than_one_time_in_twenty(kind, correlation, experiments):
    generator = np.random.default_rng(1)
    failed = drawn = 0
    for groups in (3, 7, 20):
        for rate in (0.1, 0.5, 0.9):
            for _ in range(15):
                pairs = {
                    str(n): alike(generator, kind, rate, correlation, groups, 6)
                    for n in range(experiments)
                }
                tests, suite, _ = compare_suite(
                    {name: flips for name, (flips, _) in pairs.items()},
                    {name: passed for name, (_, passed) in pairs.items()},
                )
                worse = [
                    name
                    for name, test in tests.items()
                    if test.found and sum(pairs[name][0].sums) < 0
                ]
                failed += bool(worse) or (suite is not None and suite.worse)
                drawn += 1
    assert failed / drawn <= 0.05


FAMILIES = {"few": "haystack", "many": "haystack", "big": "other"}


def test_a_family_is_tested_where_one_of_its_experiments_is_not():
    fine = {"few": steady(3, 5), "many": steady(40, 5), "big": steady(100)}
    assert [*judged(fine, families=FAMILIES).families] == ["haystack"]
    assert not judged(fine, families=dict.fromkeys(fine, "all")).families  # that is the suite
    assert not judged(fine, families=FAMILIES | {"many": "a"}).families  # each is its own
    assert not judged(fine | {"few": steady(30)}, families=FAMILIES).families  # nobody needs it
    few = fine | {"few": steady(1, 5), "many": steady(2, 5)}
    assert not judged(few, families=FAMILIES).families  # no outcome could tell


def test_a_family_finds_what_its_small_experiments_lose_together():
    small = {str(n): lost([2] * 2, [2, 1]) for n in range(8)}
    rest = {"big": steady(400), "other": lost([1] * 400, [0] * 400)}
    families = dict.fromkeys(small, "haystack")
    tests, _, found = judged(small | rest, families=families)
    assert {tests[name].method for name in small} == {"suite"}
    assert found["haystack"].worse
    assert found["haystack"].whole.lost == 24
    gained = {n: Flips(f.sizes, f.gained, f.lost) for n, f in small.items()}
    assert not judged(gained | rest, families=families).families["haystack"].worse


def test_a_family_shares_the_level_of_the_experiments():
    few = {str(n): lost([1] * 3, [1] * 3) for n in range(3)}
    rest = {f"big {n}": steady(100) for n in range(10)}
    found = judged(few | rest, families=dict.fromkeys(few, "f")).families["f"]
    assert found.p_adjusted == pytest.approx(11 * 0.5**9)
    assert found.worse
