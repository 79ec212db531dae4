"""Every answer held out once: what each layer's probe and each guess come to."""

import numpy as np
import pytest
from made_up_states import INFORMED, LeastSquares, made_up

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.experiments.output_length.baselines import prompt_prediction
from pytest_llmprobe.experiments.output_length.by_layer import skill_by_layer


def by_name(*given, **more):
    return {one.name: one for one in skill_by_layer(*given, **more)}


@pytest.mark.parametrize("by", ["sample", "word", "phrasing", "count"])
def test_folds_hold_out_every_answer_once_and_share_nothing(by):
    samples = {s["sample_id"]: s for s in INFORMED.metadata["samples"]}
    quality = [
        samples[n]["prompt" if by == "sample" else by]
        for n in INFORMED.tokens("sample_id").tolist()
    ]
    folds = INFORMED.folds(by, n=5)
    assert len(folds) == min(5, len(set(quality)))
    assert sorted(row for fold in folds for row in fold.test) == list(range(len(INFORMED)))
    for fold in folds:
        parts = [{quality[row] for row in rows} for rows in (fold.train, fold.stop, fold.test)]
        assert all(parts)
        assert not (parts[0] | parts[1]) & parts[2]


def test_one_value_cannot_be_dealt_out():
    data = made_up(lambda *_: (0.0, 0.0), tokens_per_word=(1,))
    with pytest.raises(SettingsError, match="split by word: there is only one"):
        data.folds("word")


def test_the_layer_that_knows_is_told_from_the_one_that_does_not():
    asked = []
    found = by_name(INFORMED, LeastSquares, on_progress=lambda *told: asked.append(told))
    assert list(found) == [
        *("mean", "constant", "step", "token_id", "step_and_count", "prompt"),
        *("layer 0", "layer 1"),
    ]
    assert asked[-1] == (10, 10)
    knows, knows_not = found["layer 1"], found["layer 0"]
    assert knows.mae.value < 0.01
    assert knows.r2.value > 0.99
    assert knows.over_mean.interval[0] > 0.99
    assert knows.over_best.interval[0] > 0.99
    assert knows_not.over_best.value < 0
    assert abs(knows_not.r2.value) < 0.1
    assert found["mean"].r2.value == 0
    assert found["mean"].over_best is None


def test_numbers_and_intervals_are_those_of_drawing_answers_one_by_one():
    data = made_up(lambda remaining, step, _: (NOISE.normal(remaining, 4), step))
    found = by_name(data, LeastSquares, seed=3)["layer 0"]
    error, mean_error = np.empty(len(data)), np.empty(len(data))
    for fold in data.folds(seed=3):
        probe = LeastSquares(lambda r: data.states(r, 0), data.labels, fold.train, fold.stop)
        error[fold.test] = probe.predict(data.states(fold.test, 0)) - data.labels[fold.test]
        known = np.concatenate([fold.train, fold.stop])
        mean_error[fold.test] = data.labels[known].mean() - data.labels[fold.test]
    assert found.mae.value == pytest.approx(np.abs(error).mean())
    assert found.r2.value == pytest.approx(1 - (error**2).sum() / (mean_error**2).sum())
    assert found.over_mean.value == pytest.approx(
        1 - np.abs(error).sum() / np.abs(mean_error).sum()
    )
    samples = data.tokens("sample_id")
    of = [np.flatnonzero(samples == sample) for sample in np.unique(samples)]
    rng, naive = np.random.default_rng(5), []
    for _ in range(2000):
        rows = np.concatenate([of[i] for i in rng.integers(len(of), size=len(of))])
        e, m = error[rows], mean_error[rows]
        less = [1 - (e**2).sum() / (m**2).sum(), 1 - np.abs(e).sum() / np.abs(m).sum()]
        naive.append([np.abs(e).mean(), *less])
    drawn = np.quantile(naive, [0.025, 0.975], axis=0).T
    for figure, ends in zip((found.mae, found.r2, found.over_mean), drawn, strict=True):
        width = ends[1] - ends[0]
        assert figure.interval == pytest.approx(ends, abs=0.12 * width)


NOISE = np.random.default_rng(1)


def test_the_prompt_tells_what_a_phrasing_and_a_word_do_to_the_length():
    data = made_up(lambda *_: (0.0, 0.0))  # words of one, two and three tokens
    known = by_name(data, LeastSquares, by="sample")
    assert known["prompt"].mae.value < 0.8 * known["step_and_count"].mae.value
    unseen = by_name(data, LeastSquares, by="word")
    assert unseen["prompt"].mae.value > 1.5 * known["prompt"].mae.value


def test_the_guess_from_the_prompt_is_ridge_regression():
    data = INFORMED
    split = data.split("sample")
    known = np.union1d(split.train, split.stop)
    samples = data.metadata["samples"]
    names = [(s["phrasing"], s["word"]) for s in samples]
    values = sorted({name for pair in names for name in pair})
    rows = data.tokens("sample_id")
    hot = np.array([[v in names[row] for v in values] for row in rows], float)
    x = np.column_stack([data.tokens("step"), data.asked, hot])
    mean, centre = data.labels[known].mean(), x[known].mean(0)
    # Ridge as least squares: the penalised columns' own rows, with 0 as their label.
    extra = np.sqrt(len(data) / len(samples)) * np.eye(len(values), x.shape[1], 2)
    a = np.vstack([x[known] - centre, extra])
    b = np.concatenate([data.labels[known] - mean, np.zeros(len(values))])
    weights = np.linalg.lstsq(a, b)[0]
    expected = np.maximum((x[split.test] - centre) @ weights + mean, 0)
    assert prompt_prediction(data, split) == pytest.approx(expected, abs=1e-6)
