"""Probes beside baselines: skill at both ends, its interval, the control."""

import numpy as np
import pytest
from made_up_states import INFORMED, LeastSquares, made_up

from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.output_length.data_set import Split
from pytest_llmprobe.experiments.output_length.skill import (
    judge,
    layer_curve,
    predict,
    skill,
    skill_interval,
)


def test_skill_is_relative_to_the_baseline():
    assert skill(0.0, 4.0) == 1.0
    assert skill(4.0, 4.0) == 0.0
    assert skill(6.0, 4.0) == -0.5
    assert skill(1.0, 0.0) is None


def test_words_of_one_length_leave_nothing_to_a_probe():
    data = made_up(lambda remaining, *_: (remaining, 0.0), tokens_per_word=(2, 2, 2))
    for by in ("sample", "count"):  # held-out counts are reached by the plane
        judged = judge(data, data.split(by), LeastSquares)
        assert judged.best == "step_and_count"
        assert judged.metrics["step_and_count"]["mae"] < 1e-9
        assert judged.skill is judged.interval is None


@pytest.mark.parametrize("by", ["sample", "word", "phrasing", "count", None])
def test_states_that_hold_the_label_give_a_skill_near_one(by):
    judged = judge(INFORMED, INFORMED.split(by), LeastSquares, layer=1)
    assert judged.skill > 0.99
    assert judged.metrics["probe"]["mae"] < 0.01
    assert judged.metrics[judged.best]["mae"] > 1
    low, high = judged.interval
    assert 0.99 < low <= judged.skill <= high


@pytest.mark.parametrize("by", ["sample", "word", "count"])
def test_states_that_hold_nothing_give_no_skill(by):
    judged = judge(INFORMED, INFORMED.split(by), LeastSquares, layer=0)
    assert judged.skill < 0.05
    shuffled = judged.metrics["shuffled_labels"]["mae"]
    assert shuffled == pytest.approx(judged.metrics["constant"]["mae"], rel=0.1)


def test_a_probe_on_shuffled_labels_learns_nothing_however_good_the_states():
    judged = judge(INFORMED, INFORMED.split(), LeastSquares, layer=1)
    errors = {name: measured["mae"] for name, measured in judged.metrics.items()}
    assert errors["shuffled_labels"] > 0.9 * errors["constant"]
    others = [errors[name] for name in ("constant", "step", "step_and_count", "token_id")]
    assert judged.control == skill(errors["shuffled_labels"], min(others)) <= 0


def test_a_judgement_has_the_predictions_for_the_test_rows():
    split = INFORMED.split()
    judged = judge(INFORMED, split, LeastSquares, layer=1)
    assert judged.predicted == pytest.approx(INFORMED.labels[split.test], abs=0.01)


def test_nothing_to_test_is_an_error():
    split = INFORMED.split()
    with pytest.raises(CasesError, match="no rows"):
        judge(INFORMED, Split(split.train, split.stop, split.test[:0]), LeastSquares)


def test_a_probe_of_the_step_alone_has_no_skill_though_its_r2_is_high():
    data = made_up(lambda _, step, count: (step, count), tokens_per_word=(1, 1, 2))
    judged = judge(data, data.split("sample"), LeastSquares)
    assert judged.metrics["probe"]["r2"] > 0.3
    assert judged.skill <= 0


def test_the_curve_tells_the_layer_that_knows():
    curve = layer_curve(INFORMED, INFORMED.split("word"), LeastSquares)
    assert [point["layer"] for point in curve] == [0, 1]
    assert curve[0]["skill"] < 0.1 < 0.9 < curve[1]["skill"]
    alone = judge(INFORMED, INFORMED.split("word"), LeastSquares, layer=1)
    assert curve[1]["skill"] == alone.skill
    assert (curve[1]["low"], curve[1]["high"]) == alone.interval
    assert curve[1]["control"] == alone.control
    assert curve[1]["mae"] == alone.metrics["probe"]["mae"]


def test_predictions_are_made_in_batches():
    rows = np.arange(20)[::-1]
    read = []

    def states(some):
        read.append(len(some))
        return INFORMED.states(some)

    probe = LeastSquares(INFORMED.states, INFORMED.labels, np.arange(200), None)
    whole = probe.predict(INFORMED.states(rows))
    assert predict(probe, states, rows, batch=8) == pytest.approx(whole)
    assert read == [8, 8, 4]


def test_equal_seeds_shuffle_equally():
    seen = []

    def fit(states, labels, train, stop):
        seen.append(labels.copy())
        return LeastSquares(states, labels, train, stop)

    split = INFORMED.split()
    for seed in (1, 1, 2):
        judge(INFORMED, split, fit, seed=seed)
    truth, shuffled, _, again, _, other = seen
    assert np.array_equal(shuffled, again)
    assert not np.array_equal(shuffled, other)
    known = np.union1d(split.train, split.stop)
    assert sorted(shuffled[known]) == sorted(truth[known])
    assert np.array_equal(shuffled[split.test], truth[split.test])


# The interval


def some_errors(samples=40, rows=12, worse=1.0, seed=0):
    """Errors of a probe and of three baselines, alike within a sample."""
    rng = np.random.default_rng(seed)
    place = np.repeat(np.arange(samples), rows)
    errors = rng.exponential(2, (4, samples))[:, place] + rng.exponential(1, (4, samples * rows))
    return errors[0], list(errors[1:] * worse), place


def test_an_interval_is_that_of_drawing_samples_one_by_one():
    probe, baselines, samples = some_errors(samples=12, worse=2.0)
    rng, naive = np.random.default_rng(99), []
    for _ in range(3000):
        drawn = rng.integers(12, size=12)
        rows = np.concatenate([np.flatnonzero(samples == sample) for sample in drawn])
        best = min(errors[rows].mean() for errors in baselines)
        naive.append(1 - probe[rows].mean() / best)
    found = skill_interval(probe, baselines, samples)
    assert found == pytest.approx(np.quantile(naive, [0.025, 0.975]), abs=0.03)
    assert found[0] < 1 - probe.mean() / min(b.mean() for b in baselines) < found[1]


def test_tokens_of_one_answer_count_as_one():
    probe, baselines, samples = some_errors()
    found = skill_interval(probe, baselines, samples)
    again = [np.tile(array, 3) for array in (probe, *baselines, samples)]
    assert skill_interval(again[0], again[1:4], again[4]) == pytest.approx(found)
    tokens = skill_interval(probe, baselines, np.arange(len(samples)))
    assert tokens[1] - tokens[0] < 0.6 * (found[1] - found[0])


def test_intervals_repeat_by_seed():
    given = some_errors()
    assert skill_interval(*given) == skill_interval(*given) != skill_interval(*given, seed=1)


@pytest.mark.parametrize("samples", [30, 100])
def test_a_probe_no_better_than_its_baselines_is_rarely_said_to_be_better(monkeypatch, samples):
    monkeypatch.setattr("pytest_llmprobe.experiments.output_length.skill.RESAMPLES", 400)
    lows = [skill_interval(*some_errors(samples, seed=seed))[0] for seed in range(200)]
    assert sum(low > 0 for low in lows) <= 6  # 2.5 % of them, and the best of three is better


def test_what_says_nothing_has_no_interval():
    ones = np.ones(4)
    assert skill_interval(ones, [ones * 2], np.zeros(4)) is None
    assert skill_interval(ones, [np.array([0, 0, 1, 1.0])], np.array([0, 0, 1, 1])) is None
    assert skill_interval(ones, [ones * 2], np.arange(4)) == (0.5, 0.5)
