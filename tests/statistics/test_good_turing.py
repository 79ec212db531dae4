"""Simple Good-Turing against the paper's examples, and all of it against its definition."""

import math
import random
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.statistics.good_turing import (
    chao1_unseen,
    coverage,
    good_toulmin,
    simple_good_turing,
)

many = settings(deadline=None, max_examples=100)
counts_of_counts = st.dictionaries(
    st.one_of(st.integers(1, 12), st.integers(1, 10_000)), st.integers(0, 10_000), max_size=30
)

# N_r of both examples of Gale and Sampson 1995, JQL 2:217, and r* to seven digits as the tests of
# github.com/zack112358/simple-good-turing-estimation have it; the paper prints four.
PROSODY = {
    1: (120, 0.7628079), 2: (40, 1.706448), 3: (24, 2.679796), 4: (13, 3.663988),
    5: (15, 4.653366), 6: (5, 5.645628), 7: (11, 6.63966), 8: (2, 7.634856),
    9: (2, 8.63086), 10: (1, 9.627446), 12: (3, 11.62182), 14: (2, 13.61725),
    15: (1, 14.61524), 16: (1, 15.61336), 17: (3, 16.6116), 19: (1, 18.60836),
    20: (3, 19.60685), 21: (2, 20.6054), 23: (3, 22.60264), 24: (3, 23.60133),
    25: (3, 24.60005), 26: (2, 25.5988), 27: (2, 26.59759), 28: (1, 27.59639),
    31: (2, 30.59294), 32: (2, 31.59183), 33: (1, 32.59073), 34: (2, 33.58964),
    36: (2, 35.58751), 41: (3, 40.58235), 43: (1, 42.58035), 45: (3, 44.57836),
    46: (1, 45.57738), 47: (1, 46.57641), 50: (1, 49.57351), 71: (1, 70.55399),
    84: (1, 83.54229), 101: (1, 100.5272), 105: (1, 104.5237), 121: (1, 120.5097),
    124: (1, 123.507), 146: (1, 145.4879), 162: (1, 161.474), 193: (1, 192.4472),
    199: (1, 198.4421), 224: (1, 223.4205), 226: (1, 225.4188), 254: (1, 253.3947),
    257: (1, 256.3922), 339: (1, 338.3218), 421: (1, 420.2514), 456: (1, 455.2215),
    481: (1, 480.2), 483: (1, 482.1983), 1140: (1, 1138.636), 1256: (1, 1254.537),
    1322: (1, 1320.48), 1530: (1, 1528.302), 2131: (1, 2128.788), 2395: (1, 2392.562),
    6925: (1, 6918.687), 7846: (1, 7838.899),
}  # fmt: skip
CHINESE_PLURALS = {
    1: (268, 0.8414893), 2: (112, 1.887716), 3: (70, 2.288452), 4: (41, 3.247259),
    5: (24, 4.222094), 6: (14, 5.206074), 7: (15, 6.195765), 8: (14, 7.189259),
    9: (8, 8.185414), 10: (11, 9.183503), 11: (9, 10.18304), 12: (6, 11.1837),
    13: (6, 12.18523), 14: (3, 13.18746), 15: (7, 14.19026), 16: (9, 15.19353),
    17: (4, 16.19719), 18: (4, 17.20118), 19: (8, 18.20545), 20: (2, 19.20996),
    21: (4, 20.21467), 22: (2, 21.21956), 23: (2, 22.22462), 24: (3, 23.22981),
    25: (4, 24.23512), 26: (4, 25.24054), 27: (4, 26.24606), 28: (1, 27.25167),
    29: (1, 28.25735), 31: (2, 30.26893), 33: (1, 32.28073), 39: (3, 38.31721),
    41: (1, 40.32964), 46: (1, 45.36113), 47: (1, 46.36749), 50: (1, 49.38667),
    52: (2, 51.39953), 53: (1, 52.40597), 55: (1, 54.41891), 57: (1, 56.43188),
    60: (1, 59.45142), 74: (1, 73.54344), 84: (1, 83.60977), 108: (1, 107.7701),
    109: (1, 108.7768), 177: (1, 177.2346), 400: (1, 401.744), 1918: (1, 1930.037),
}  # fmt: skip


def digits(number):
    return f"{number:.7g}"


@pytest.mark.parametrize(
    ("example", "unseen_mass", "intercept", "slope", "switch"),
    [
        (PROSODY, 0.003883244, 4.468558, -1.389374, 1),
        (CHINESE_PLURALS, 0.04090978, 6.683387, -1.964591, 3),
    ],
    ids=["prosody", "Chinese plurals"],
)
def test_the_papers_examples_come_out_to_the_last_of_seven_digits(
    example, unseen_mass, intercept, slope, switch
):
    types = {r: n for r, (n, _) in example.items()}
    estimate = simple_good_turing(types)
    assert digits(estimate.unseen_mass) == digits(unseen_mass)
    assert digits(estimate.intercept) == digits(intercept)
    assert digits(estimate.slope) == digits(slope)
    assert estimate.switch == switch
    published = {r: digits(adjusted) for r, (_, adjusted) in example.items()}
    assert {r: digits(adjusted) for r, adjusted in estimate.adjusted_counts.items()} == published


def test_two_counts_by_hand():
    # Z = 4, 1; ln Z = ln 4 - 2 ln r; r* = 2/4, 3 * 4/9 before the third that is seen is shared out
    estimate = simple_good_turing({1: 4, 2: 1})
    assert estimate.unseen_mass == pytest.approx(2 / 3)
    assert (estimate.intercept, estimate.slope) == pytest.approx((math.log(4), -2))
    assert estimate.probabilities == pytest.approx({1: 0.05, 2: 2 / 15})
    assert estimate.adjusted_counts == pytest.approx({1: 0.3, 2: 0.8})


@many
@given(counts_of_counts)
def test_the_total_mass_is_one(types):
    estimate = simple_good_turing(types)
    seen = math.fsum(types[r] * p for r, p in estimate.probabilities.items())
    assert estimate.unseen_mass + seen == pytest.approx(1, abs=1e-12)
    assert 0 <= estimate.unseen_mass <= 1
    assert all(0 <= p <= 1 for p in estimate.probabilities.values())


def paper(types):
    """The paper's procedure as a table, row by row, without the regression's own shortcuts."""
    rows = sorted(types)
    z = []
    for i, r in enumerate(rows):
        q = rows[i - 1] if i else 0
        t = rows[i + 1] if i + 1 < len(rows) else 2 * r - q
        z.append(2 * types[r] / (t - q))
    x, y = [math.log(r) for r in rows], [math.log(value) for value in z]
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    slope = math.fsum((u - mean_x) * (v - mean_y) for u, v in zip(x, y, strict=True))
    slope /= math.fsum((u - mean_x) ** 2 for u in x)
    intercept = mean_y - slope * mean_x
    fitted = {r: math.exp(intercept + slope * math.log(r)) for r in {*rows, *(r + 1 for r in rows)}}
    raw, smooth_from_here = {}, False
    for r in rows:
        smooth = (r + 1) * fitted[r + 1] / fitted[r]
        more = types.get(r + 1, 0)
        turing = (r + 1) * more / types[r]
        sd = math.sqrt((r + 1) ** 2 * (more / types[r] ** 2) * (1 + more / types[r]))
        smooth_from_here |= more == 0 or abs(turing - smooth) <= 1.65 * sd
        raw[r] = smooth if smooth_from_here else turing
    seen = 1 - Fraction(types.get(1, 0), sum(r * n for r, n in types.items()))
    total = math.fsum(types[r] * raw[r] for r in rows)
    return {r: float(seen) * raw[r] / total for r in rows}


@many
@given(counts_of_counts)
def test_probabilities_are_those_of_the_papers_table(types):
    types = {r: n for r, n in types.items() if n}
    assume(len(types) > 1)
    assert simple_good_turing(types).probabilities == pytest.approx(paper(types), rel=1e-9)


@many
@given(counts_of_counts)
def test_counts_of_zero_and_the_order_make_no_difference(types):
    dense = {r: types.get(r, 0) for r in sorted({*types, *range(1, 20)}, reverse=True)}
    assert simple_good_turing(dense) == simple_good_turing(types)


def test_nothing_seen_leaves_all_mass_unseen():
    for types in ({}, {3: 0}):
        estimate = simple_good_turing(types)
        assert estimate.unseen_mass == 1
        assert estimate.probabilities == estimate.adjusted_counts == {}
        assert estimate.slope is estimate.intercept is estimate.switch is None


def test_one_count_above_one_leaves_nothing_unseen():
    estimate = simple_good_turing({3: 4})
    assert (estimate.unseen_mass, estimate.probabilities) == (0, {3: 0.25})
    assert estimate.adjusted_counts == {3: 3}
    assert estimate.slope is estimate.switch is None


def test_types_seen_once_only_are_a_sample_of_the_unseen():
    estimate = simple_good_turing({1: 7})
    assert (estimate.unseen_mass, estimate.probabilities) == (1, {1: 0})


def test_without_types_seen_once_nothing_is_unseen():
    estimate = simple_good_turing({2: 5, 3: 2})
    assert estimate.unseen_mass == 0
    assert 5 * estimate.probabilities[2] + 2 * estimate.probabilities[3] == pytest.approx(1)
    assert estimate.switch is not None


def test_a_flat_distribution_shows_by_its_slope():
    assert simple_good_turing({1: 5, 2: 5, 3: 5}).slope > -1


@pytest.mark.parametrize("function", [simple_good_turing, coverage, chao1_unseen])
@pytest.mark.parametrize("types", [{0: 3}, {-1: 3}, {1: -1}])
def test_impossible_counts_are_refused(function, types):
    with pytest.raises(CasesError, match="count from r = 1"):
        function(types)
    with pytest.raises(CasesError, match="count from r = 1"):
        good_toulmin(types, 1)


def test_coverage_by_hand():
    assert coverage({1: 3, 2: 1, 5: 1}) == pytest.approx(0.7)
    assert coverage({1: 3}) == coverage({}) == 0
    assert coverage({2: 3}) == 1


def test_chao1_by_hand():
    assert chao1_unseen({1: 10, 2: 4}) == 9
    assert chao1_unseen({1: 10}) == 45
    assert chao1_unseen({}) == chao1_unseen({1: 1}) == chao1_unseen({2: 9}) == 0


def test_good_toulmin_by_hand():
    assert good_toulmin({1: 10, 2: 4, 3: 1}, 1) == 7
    assert good_toulmin({1: 10, 2: 4, 3: 1}, 0.5) == pytest.approx(5 - 1 + 0.125)
    assert good_toulmin({1: 10, 2: 4}, 0) == good_toulmin({}, 1) == 0


@pytest.mark.parametrize("t", [-0.1, 1.01, math.nan])
def test_good_toulmin_looks_no_further_than_the_sample(t):
    with pytest.raises(SettingsError, match="between 0 and 1"):
        good_toulmin({1: 3}, t)


def test_the_estimates_foretell_what_more_sampling_finds():
    rng = random.Random(4)
    weights = [1 / rank for rank in range(1, 3001)]
    sample = rng.choices(range(3000), weights, k=4000)
    counts = Counter(sample)
    types = Counter(counts.values())
    new_mass = sum(w for item, w in enumerate(weights) if item not in counts) / sum(weights)
    estimate = simple_good_turing(types)
    assert estimate.unseen_mass == pytest.approx(new_mass, rel=0.1)
    assert coverage(types) == pytest.approx(1 - estimate.unseen_mass)
    more = set(rng.choices(range(3000), weights, k=4000)) - set(counts)
    assert good_toulmin(types, 1) == pytest.approx(len(more), rel=0.1)
    assert 0.5 * (3000 - len(counts)) < chao1_unseen(types) < 1.1 * (3000 - len(counts))
