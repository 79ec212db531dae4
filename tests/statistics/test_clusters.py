"""Tests that allow for clusters, against counting by hand and against the plain ones."""

import itertools
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.statistics.clusters import (
    Flips,
    correlations,
    deflated,
    design_effect,
    shown_correlation,
    sign_flip_test,
)
from pytest_llmprobe.statistics.paired import mcnemar

many = settings(deadline=None, max_examples=100)


def whole(groups, size, directions):
    """Clusters whose cases all flip as one, in the given directions."""
    return Flips(
        [size] * groups,
        [size * (d < 0) for d in directions],
        [size * (d > 0) for d in directions],
    )


@many
@given(st.lists(st.integers(-9, 9), max_size=10))
def test_the_sign_test_is_the_share_of_all_signs_that_are_as_extreme(sums):
    totals = [
        sum(sign * part for sign, part in zip(signs, sums, strict=True))
        for signs in itertools.product((-1, 1), repeat=len(sums))
    ]
    assert sign_flip_test(sums) == pytest.approx(fmean(abs(t) >= abs(sum(sums)) for t in totals))
    assert sign_flip_test(sums, worse=True) == pytest.approx(fmean(t <= sum(sums) for t in totals))


@many
@given(st.integers(0, 60), st.integers(0, 60))
def test_with_a_flip_a_cluster_it_is_mcnemars(lost, gained):
    assert sign_flip_test([-1] * lost + [1] * gained) == pytest.approx(mcnemar(lost, gained))


def test_clusters_are_counted_one_by_one():
    flips = Flips.of([-1, 0, 1, -1, -1], "aabbb")
    assert sorted(zip(flips.sizes, flips.lost, flips.gained, strict=True)) == [
        (2, 1, 0),
        (3, 2, 1),
    ]
    assert flips.n == 5
    assert sorted(flips.sums) == [-1, -1]


def test_the_design_effect_by_hand():
    assert design_effect([5] * 4, 0.5) == 1 + 0.5 * 4
    assert design_effect([1] * 9, 0.9) == 1


def test_clusters_that_flip_as_one_are_seen_to_and_others_are_not():
    generator = np.random.default_rng(0)
    together = [whole(20, 10, generator.integers(-1, 2, 20)) for _ in range(5)]
    apart = [
        Flips([10] * 20, generator.binomial(10, 0.2, 20), generator.binomial(10, 0.2, 20))
        for _ in range(5)
    ]
    assert shown_correlation(together) > 0.9
    assert shown_correlation(apart) < 0.1
    assert min(correlations(together)) > 0.9
    assert max(correlations(apart)) < 0.2


def test_without_any_evidence_a_cluster_is_supposed_to_flip_as_one():
    assert correlations([Flips([5] * 3, [0] * 3, [0] * 3)]) == [1]
    assert shown_correlation([Flips([5] * 3, [0] * 3, [0] * 3)]) == 0


def test_effective_flips_are_rounded_against_a_finding():
    flips = Flips([5] * 4, [4, 4, 3, 0], [0, 0, 0, 1])  # 12 flips, design effect 3
    assert deflated(flips, 0.5) == (4, 1)
    assert deflated(flips, 0.0) == (12, 1)
    assert deflated(Flips([5], [0], [0]), 1.0) == (0, 0)
