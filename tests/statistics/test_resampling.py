"""The bootstrap interval beside the one that a formula gives, and its clusters."""

import random

import pytest

from pytest_llmprobe.statistics.intervals import mean_interval
from pytest_llmprobe.statistics.resampling import bootstrap_interval


def test_the_interval_of_a_mean_is_nearly_the_normal_one():
    rng = random.Random(0)
    values = [rng.gauss(1, 2) for _ in range(300)]

    def mean(numbers):
        return sum(values[n] for n in numbers) / len(numbers)

    found = bootstrap_interval(mean, range(300), resamples=2000)
    assert found == pytest.approx(mean_interval(values, range(300)), abs=0.04)
    assert bootstrap_interval(mean, range(300), resamples=2000) == found


def test_rows_of_a_cluster_are_drawn_together():
    clusters = [n // 5 for n in range(20)]

    def whole(numbers):
        counts = {}
        for number in numbers:
            counts.setdefault(clusters[number], []).append(number)
        assert all(len(members) % 5 == 0 for members in counts.values())
        return float(len(numbers))

    assert bootstrap_interval(whole, clusters) == (20.0, 20.0)
    assert bootstrap_interval(whole, [0] * 20) is None
