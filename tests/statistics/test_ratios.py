"""The interval of a ratio: the mean's where counts are equal, and its coverage by simulation."""

import numpy as np
import pytest

from pytest_llmprobe.statistics.intervals import mean_interval
from pytest_llmprobe.statistics.ratios import ratio_interval


def test_with_equal_counts_it_is_the_clustered_interval_of_the_mean():
    random = np.random.default_rng(0)
    values, clusters = random.normal(size=40).tolist(), [i // 4 for i in range(40)]
    assert ratio_interval(values, [1] * 40, clusters) == pytest.approx(
        mean_interval(values, clusters)
    )


def test_it_holds_the_true_ratio_as_often_as_it_says():
    random, held = np.random.default_rng(1), 0
    for _ in range(400):
        counts = random.integers(5, 40, size=60)
        shared = np.repeat(random.normal(size=20), 3)
        sums = counts * (2 + 0.5 * shared + random.normal(size=60))
        low, high = ratio_interval(sums.tolist(), counts.tolist(), [i // 3 for i in range(60)])
        held += low <= 2 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_one_cluster_gives_no_interval():
    assert ratio_interval([1.0, 2.0], [1, 1], ["a", "a"]) is None
