"""Student's t against SciPy."""

import pytest
from scipy import stats

from pytest_llmprobe.statistics.student import t_cdf, t_quantile

FREEDOM = [0.7, 1, 2, 2.5, 5, 30, 300, 5000]


@pytest.mark.parametrize("freedom", FREEDOM)
def test_the_distribution_is_scipys(freedom):
    for t in (-30, -5, -2, -0.3, 0, 0.001, 1, 3, 40):
        assert t_cdf(t, freedom) == pytest.approx(stats.t.cdf(t, freedom), abs=1e-10)


@pytest.mark.parametrize("freedom", FREEDOM)
def test_the_quantile_is_scipys(freedom):
    for probability in (0.01, 0.2, 0.6, 0.975, 0.995):
        expected = stats.t.ppf(probability, freedom)
        assert t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-9)
