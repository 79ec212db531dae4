"""Metrics by their definitions, baselines on data whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_states import INFORMED

from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.output_length.baselines import (
    baseline_predictions,
    by_key,
    classification,
    in_bins,
    linear,
    metrics,
    spearman,
)
from pytest_llmprobe.experiments.output_length.data_set import LengthData

few = settings(deadline=None, max_examples=60)
lengths = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=2, max_size=30)


# Measures


@few
@given(lengths)
def test_measures_follow_their_definitions(pairs):
    p, y = np.array(pairs, float).T
    found = metrics(p, y, train_mean=7.5)
    n = len(pairs)
    errors = [abs(a - b) for a, b in pairs]
    logs = [abs(math.log(1 + a) - math.log(1 + b)) for a, b in pairs]
    assert found["mae"] == pytest.approx(sum(errors) / n)
    assert found["rmse"] == pytest.approx(math.sqrt(sum(e * e for e in errors) / n))
    assert found["log_mae"] == pytest.approx(sum(logs) / n)
    assert found["log_rmse"] == pytest.approx(math.sqrt(sum(e * e for e in logs) / n))
    parts = [abs(a - b) / b for a, b in pairs if b > 5]
    assert found["mape"] == (pytest.approx(100 * sum(parts) / len(parts)) if parts else None)
    spread = sum((b - 7.5) ** 2 for _, b in pairs)
    assert found["r2"] == pytest.approx(1 - sum(e * e for e in errors) / spread)


@few
@given(lengths)
def test_spearman_is_pearson_of_mean_ranks(pairs):
    def ranks(values):
        return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]

    a, b = zip(*pairs, strict=True)
    found = spearman(np.array(a), np.array(b))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(np.corrcoef(ranks(a), ranks(b))[0, 1], abs=1e-9)


def test_bins_begin_with_nothing_and_double():
    values = np.array([0, 0.4, 0.6, 1, 2, 3, 3.6, 4, 7, 8, 127, 128, 1e6])
    assert in_bins(values).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 7, 8, 8]


def test_macro_f1_is_the_mean_over_classes_that_occur():
    actual, predicted = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 3])
    f1 = [2 * 2 / (2 + 3), 2 * 1 / (2 + 1), 0, 0]
    assert classification(predicted, actual) == (pytest.approx(0.6), pytest.approx(sum(f1) / 4))
    assert classification(actual, actual) == (1.0, 1.0)


def test_perfect_predictions_are_perfect_in_every_measure():
    y = np.arange(40)
    assert metrics(y, y, 3.0) == {
        **dict.fromkeys(("mae", "rmse", "log_mae", "log_rmse", "mape"), 0.0),
        **dict.fromkeys(("r2", "spearman", "bin_accuracy", "bin_macro_f1"), pytest.approx(1.0)),
    }
    assert metrics(y, y, 3.0)["mape"] == 0.0


def test_undefined_measures_are_none_and_no_rows_an_error():
    found = metrics(np.array([1.0, 2.0]), np.array([2, 2]), 2.0)
    assert found["r2"] is found["mape"] is found["spearman"] is None
    with pytest.raises(CasesError, match="no rows"):
        metrics(np.array([]), np.array([]), 0.0)


# Baselines


@few
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50)), min_size=1), st.integers(0, 6))
def test_a_key_predicts_the_median_of_its_rows(rows, key):
    keys, labels = np.array(rows).T
    same = [label for k, label in rows if k == key]
    (found,) = by_key(keys, labels, np.array([key]), np.array([-1.0]))
    assert found == (np.median(same) if same else -1.0)


def test_least_squares_finds_a_plane_and_never_goes_below_zero():
    x = np.array([[1, 5], [2, 3], [4, 4], [0, 1]], float)
    y = 2 * x[:, 0] - x[:, 1] + 6
    asked = np.array([[3.0, 3.0], [0.0, 50.0]])
    assert linear(x, y, asked) == pytest.approx([9.0, 0.0])


def test_baselines_see_what_their_names_say():
    data = INFORMED
    split = data.split()
    found = baseline_predictions(data, split)
    assert set(found) == {"constant", "step", "token_id", "step_and_count"}
    y, step, token = data.labels, data.tokens("step"), data.tokens("token_id")
    known = np.union1d(split.train, split.stop)
    assert set(found["constant"]) == {np.median(y[known])}
    for i, row in list(enumerate(split.test))[::17]:
        same_step = known[step[known] == step[row]]
        if len(same_step):
            assert found["step"][i] == np.median(y[same_step])
        assert found["token_id"][i] == np.median(y[known[token[known] == token[row]]])
    ends = data.labels[split.test] == 0
    assert (found["token_id"][ends] == 0).all()  # the end token gives the end away


def test_nobody_said_how_many_words():
    data = INFORMED
    for sample in (metadata := {"samples": [dict(s) for s in data.metadata["samples"]]})["samples"]:
        sample["count"] = sample["word"] = None
    silent = LengthData(metadata, data.layers, data.hidden_size, data.train, data.val)
    assert "step_and_count" not in baseline_predictions(silent, silent.split())
