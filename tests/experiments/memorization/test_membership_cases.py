"""Membership scores against their definitions, and on texts whose membership is known."""

import math
import zlib
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe import load_model
from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.experiments.memorization.known_texts import known_texts
from pytest_llmprobe.experiments.memorization.membership import (
    MembershipScores,
    mean_log_probability,
    membership_scores,
    min_k,
    min_k_plus_plus,
    reference_difference,
    zlib_ratio,
)
from pytest_llmprobe.statistics.ranking import roc_auc
from pytest_llmprobe.whitebox.log_probabilities import log_probabilities

many = settings(deadline=None, max_examples=60)
log_ps = st.lists(st.floats(-40, 0), min_size=1, max_size=60)
percentages = st.integers(1, 100)
NAMES = ["loss", "min_k", "min_k_plus_plus", "zlib", "reference"]
TEXT = "The old river is near the grey tree. The grey tree is old."


@dataclass(frozen=True)
class Measured:
    log_probability: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def measured(log_p, mean=-3.0, variance=4.0):
    """The same distribution at every place."""
    return Measured(np.array(log_p), np.full(len(log_p), mean), np.full(len(log_p), variance))


def lowest(values, k):
    """The definition: sort, take k per cent, but at least one."""
    count = len(values) * k // 100 or 1
    return fmean(sorted(values)[:count])


def test_every_score_by_hand():
    log_p = [-1.0, -4.0, -2.0, -5.0, -3.0, -0.5, -0.5, -1.0, -2.0, -1.0]
    mean = [-1.0, -2.0, -2.0, -4.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0]
    variance = [1.0, 4.0, 1.0, 4.0, 16.0, 1.0, 1.0, 1.0, 4.0, 1.0]
    data = Measured(*map(np.array, (log_p, mean, variance)))
    found = membership_scores("ab é", data, reference=measured([-6.0] * 5))
    assert found.as_dict() == {
        "loss": pytest.approx(-2),
        "min_k": pytest.approx(-4.5),  # of ten the two lowest: -5 and -4
        # the two lowest of 0, -1, 0, -1/2, -1/2, 1/2, 1/2, 0, -1/2, 0
        "min_k_plus_plus": pytest.approx(-0.75),
        "zlib": pytest.approx(-2 / len(zlib.compress(b"ab \xc3\xa9"))),
        "reference": pytest.approx((-20 - -30) / 5),  # five bytes
    }
    assert found.perplexity == pytest.approx(math.exp(2))


def test_without_a_reference_model_there_is_no_score_of_it():
    found = membership_scores(TEXT, measured([-1.0, -2.0]))
    assert found.reference is None
    assert list(found.as_dict()) == NAMES[:-1]


@many
@given(log_ps, percentages)
def test_min_k_is_the_mean_of_the_lowest(log_p, k):
    assert min_k(np.array(log_p), k) == pytest.approx(lowest(log_p, k))


@many
@given(log_ps, percentages, st.data())
def test_min_k_plus_plus_is_min_k_of_standardised_values(log_p, k, data):
    n = len(log_p)
    mean = data.draw(st.lists(st.floats(-20, 0), min_size=n, max_size=n))
    variance = data.draw(st.lists(st.floats(1e-3, 30), min_size=n, max_size=n))
    rows = zip(log_p, mean, variance, strict=True)
    standardised = [(value - mu) / math.sqrt(var) for value, mu, var in rows]
    found = min_k_plus_plus(np.array(log_p), np.array(mean), np.array(variance), k)
    assert found == pytest.approx(lowest(standardised, k))


@many
@given(log_ps, st.permutations(range(60)))
def test_the_order_of_the_tokens_does_not_matter(log_p, order):
    shuffled = [log_p[n] for n in order if n < len(log_p)]
    one = membership_scores(TEXT, measured(log_p), reference=measured([-2.0]))
    other = membership_scores(TEXT, measured(shuffled), reference=measured([-2.0]))
    assert one.as_dict() == pytest.approx(other.as_dict())


@many
@given(st.lists(st.floats(-40, -1), min_size=1, max_size=60), percentages, st.floats(0.1, 1))
def test_every_score_is_higher_for_a_likelier_text(log_p, k, more):
    likelier = [value + more for value in log_p]
    reference = measured([-2.0])
    low = membership_scores(TEXT, measured(log_p), reference=reference, k=k)
    high = membership_scores(TEXT, measured(likelier), reference=reference, k=k)
    assert all(high.as_dict()[name] > low.as_dict()[name] for name in NAMES)
    assert high.perplexity < low.perplexity


@many
@given(log_ps)
def test_all_tokens_give_the_mean(log_p):
    log_p = np.array(log_p)
    assert min_k(log_p, 100) == pytest.approx(mean_log_probability(log_p))


@pytest.mark.parametrize("k", [0.5, 1, 20, 100])
def test_a_text_with_one_log_probability_is_scored_by_it(k):
    found = membership_scores("a", measured([-5.0]), k=k)
    assert found.loss == found.min_k == -5
    assert found.min_k_plus_plus == -1


@pytest.mark.parametrize(("n", "k", "count"), [(4, 20, 1), (5, 20, 1), (9, 20, 1), (10, 20, 2)])
def test_k_per_cent_are_rounded_down_but_at_least_one(n, k, count):
    log_p = -np.arange(1.0, n + 1)
    assert min_k(log_p, k) == pytest.approx(fmean(range(-n, -n + count)))


def test_zlib_uses_the_mean_and_not_the_sum():
    log_p = np.array([-1.0, -3.0])
    assert zlib_ratio(TEXT, np.tile(log_p, 5)) == pytest.approx(zlib_ratio(TEXT, log_p))


def test_of_two_texts_as_likely_the_repetitive_one_is_less_suspicious():
    log_p = np.array([-1.0, -3.0])
    assert zlib_ratio("la " * 20, log_p) < zlib_ratio(TEXT, log_p)


def test_the_reference_difference_does_not_depend_on_how_a_text_is_cut():
    model = np.full(10, -1.0)
    whole = reference_difference(TEXT, model, np.full(10, -2.0))
    assert reference_difference(TEXT, model, np.full(4, -5.0)) == pytest.approx(whole)
    assert whole == pytest.approx(10 / len(TEXT))


def test_equal_models_differ_by_nothing():
    log_p = np.array([-1.0, -3.0])
    assert reference_difference(TEXT, log_p, log_p) == 0


def test_certainty_is_no_division_by_zero():
    certain = measured([0.0, 0.0], mean=0.0, variance=0.0)
    assert membership_scores(TEXT, certain).min_k_plus_plus == 0
    surprised = measured([0.0, -100.0], mean=0.0, variance=0.0)
    assert -math.inf < membership_scores(TEXT, surprised).min_k_plus_plus < -1e6


def test_a_variance_rounded_below_zero_counts_as_none():
    assert membership_scores(TEXT, measured([-1.0], -1.0, -1e-12)).min_k_plus_plus == 0


def test_the_perplexity_of_an_impossible_text_is_infinite():
    assert MembershipScores(-5000.0, -1, -1, -1).perplexity == math.inf


def test_half_a_surrogate_pair_has_bytes_too():
    found = membership_scores("a\ud800", measured([-1.0]), reference=measured([-3.0]))
    assert found.reference == pytest.approx(2 / 4)
    assert found.zlib < 0


@pytest.mark.parametrize("k", [0, -1, 100.5, float("nan")])
def test_a_k_that_is_no_percentage_is_refused(k):
    with pytest.raises(SettingsError, match="no percentage above 0"):
        min_k(np.array([-1.0]), k)
    with pytest.raises(SettingsError, match="no percentage above 0"):
        membership_scores(TEXT, measured([-1.0]), k=k)


def test_a_text_of_one_token_without_bos_has_no_scores():
    with pytest.raises(CasesError, match=r"no token with a log-probability.*BOS"):
        membership_scores("a", measured([]))


@pytest.mark.parametrize("field", [0, 1, 2])
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_is_refused(field, broken):
    arrays = [np.array([-1.0, -2.0]), np.array([-1.0, -2.0]), np.array([1.0, 1.0])]
    arrays[field][1] = broken
    with pytest.raises(CasesError, match="NaN or infinite"):
        membership_scores(TEXT, Measured(*arrays))


def test_arrays_of_different_length_are_refused():
    with pytest.raises(CasesError, match="2 log-probabilities, 1 means and 2 variances"):
        min_k_plus_plus(np.zeros(2), np.zeros(1), np.ones(2))


def test_an_empty_text_has_no_reference_difference():
    with pytest.raises(CasesError, match="empty text"):
        reference_difference("", np.zeros(1), np.zeros(1))


def own_ids(model, text):
    """A text in the model's own tokens, after BOS."""
    ids = model.tokenizer(text, add_special_tokens=False).input_ids
    return [model.tokenizer.bos_token_id, *ids]


@pytest.fixture(scope="module")
def canary_scores():
    """Scores of the canaries shown 64 times and never, by the model shown them and another."""
    known = [k for k in known_texts() if k.kind == "canary" and k.exposures in (0, 64)]
    loaded = [load_model("reference"), load_model("reference-unlearned")]
    by_model = [
        log_probabilities(model, [own_ids(model, k.text) for k in known]) for model in loaded
    ]
    scored = {}
    for name, data, others in zip(
        ("reference", "reference-unlearned"), by_model, by_model[::-1], strict=True
    ):
        for k, one, other in zip(known, data, others, strict=True):
            found = membership_scores(k.text, one, reference=other)
            scored.setdefault((name, k.exposures), []).append(found)
    return scored


@pytest.mark.parametrize("name", NAMES)
def test_texts_shown_often_score_above_texts_never_shown(canary_scores, name):
    groups = [
        [getattr(found, name) for found in canary_scores["reference", exposures]]
        for exposures in (64, 0)
    ]
    assert [len(group) for group in groups] == [64, 64]
    assert roc_auc(*groups) >= 0.95


@pytest.mark.parametrize("name", NAMES[:-1])
def test_a_model_that_was_shown_none_of_them_tells_nothing(canary_scores, name):
    groups = [
        [getattr(found, name) for found in canary_scores["reference-unlearned", exposures]]
        for exposures in (64, 0)
    ]
    assert 0.3 < roc_auc(*groups) < 0.7  # chance; the standard error is 0.05
