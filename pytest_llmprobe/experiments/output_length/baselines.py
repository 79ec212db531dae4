"""How good predictions of the remaining tokens are, and what could be predicted without a state."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.output_length.data_set import LengthData, Split

Numbers: TypeAlias = npt.NDArray[np.floating] | npt.NDArray[np.integer]
Predicted: TypeAlias = npt.NDArray[np.float64]
Metrics: TypeAlias = dict[str, float | None]

BINS = (1, 2, 4, 8, 16, 32, 64, 128)
"""First lengths of the bins for classification; 0 has a bin of its own."""

MAPE_ABOVE = 5
"""Percentages of fewer remaining tokens say nothing."""

NOTHING = 1e-9
"""Errors and spreads below this are rounding."""


def metrics(predicted: Numbers, actual: Numbers, train_mean: float) -> Metrics:
    """The experiment's measures of predictions against labels, over n rows.

    Args:
        predicted: Remaining tokens, 0 or more [n].
        actual: The labels [n].
        train_mean: Mean label of the training rows, which R^2 compares with.

    Returns:
        ``mae``, ``rmse``; ``log_mae``, ``log_rmse`` of ln(1 + y); ``mape`` over labels above 5;
        ``r2`` = 1 - SSE / sum((y - train mean)^2); ``spearman``; ``bin_accuracy`` and
        ``bin_macro_f1`` in `BINS`. None where a measure is not defined.

    Raises:
        CasesError: There are no rows.
    """
    y, p = np.asarray(actual, np.float64), np.asarray(predicted, np.float64)
    if not len(y):
        raise CasesError("there are no rows to judge predictions by: hold out more")
    error, log_error = p - y, np.log1p(p) - np.log1p(y)
    spread, long = np.square(y - train_mean).sum(), y > MAPE_ABOVE
    accuracy, f1 = classification(in_bins(p), in_bins(y))
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "log_mae": float(np.abs(log_error).mean()),
        "log_rmse": float(np.sqrt(np.square(log_error).mean())),
        "mape": float((np.abs(error[long]) / y[long]).mean() * 100) if long.any() else None,
        "r2": float(1 - np.square(error).sum() / spread) if spread > NOTHING else None,
        "spearman": spearman(p, y),
        "bin_accuracy": accuracy,
        "bin_macro_f1": f1,
    }


def in_bins(lengths: Numbers) -> npt.NDArray[np.intp]:
    """The bin of each length, from 0; predictions are rounded first."""
    return np.digitize(np.rint(lengths), BINS)


def classification(predicted: Numbers, actual: Numbers) -> tuple[float, float]:
    """Accuracy and macro F1: the mean F1 over the classes that occur on either side."""
    scores = []
    for label in np.union1d(predicted, actual):
        hits = np.sum((predicted == label) & (actual == label))
        scores.append(2 * hits / (np.sum(predicted == label) + np.sum(actual == label)))
    return float(np.mean(predicted == actual)), float(np.mean(scores))


def spearman(a: Numbers, b: Numbers) -> float | None:
    """Spearman's rank correlation, with mean ranks for ties; None if one side is constant."""
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt(np.square(x).sum() * np.square(y).sum())
    return float((x * y).sum() / norm) if norm > NOTHING else None


def _ranks(values: Numbers) -> npt.NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks: npt.NDArray[np.float64] = (last - (count - 1) / 2)[place]
    return ranks


# Baselines: medians, which no constant beats in mean absolute error, of rows that look the same.


def baseline_predictions(data: LengthData, split: Split) -> dict[str, Predicted]:
    """What the test rows would be predicted from what is known without a state.

    They are made from all rows that are not held out, those to stop by included.

    Returns:
        ``constant``; ``step``: how many tokens came before; ``step_and_count``: that and how many
        words were asked for, if anybody said; ``token_id``: the token that is generated.
    """
    known, test = np.union1d(split.train, split.stop), split.test
    step, token, asked = data.tokens("step"), data.tokens("token_id"), data.asked
    y = data.labels[known].astype(np.float64)
    constant = np.full(len(test), np.median(y))
    predictions = {
        "constant": constant,
        "step": by_key(step[known], y, step[test], constant),
        "token_id": by_key(token[known], y, token[test], constant),
    }
    if asked.any():
        both = np.stack([step, asked], axis=1)
        plane = linear(both[known], y, both[test])
        # One number for each pair; steps and counts are below 2^31.
        key = step.astype(np.int64) * 2**31 + asked
        predictions["step_and_count"] = by_key(key[known], y, key[test], plane)
    return predictions


def prompt_prediction(data: LengthData, split: Split) -> Predicted:
    """What the test rows would be predicted from all that the request says, and the step.

    Ridge regression on step and count, and on which phrasing and which word it is. The effect of
    each phrasing and word is drawn to 0 as if an answer of the usual length had shown none: those
    that few answers have, or none that is known, would else be given what is theirs by chance.
    """
    known, test = np.union1d(split.train, split.stop), split.test
    samples = {sample["sample_id"]: sample for sample in data.metadata["samples"]}
    of_row = [samples[sample] for sample in data.tokens("sample_id").tolist()]
    columns = [data.tokens("step"), data.asked]
    for name in ("phrasing", "word"):
        values = np.array([str(sample[name]) for sample in of_row])
        columns += [values == value for value in np.unique(values)]
    inputs = np.stack(columns, axis=1).astype(np.float64)
    penalty = np.full(inputs.shape[1], len(of_row) / len(samples))
    penalty[:2] = NOTHING
    labels = data.labels[known].astype(np.float64)
    mean, centre = labels.mean(), inputs[known].mean(axis=0)
    x = inputs[known] - centre
    weights = np.linalg.solve(x.T @ x + np.diag(penalty), x.T @ (labels - mean))
    predicted: Predicted = (inputs[test] - centre) @ weights + mean
    return np.maximum(predicted, 0)


def by_key(keys: Numbers, labels: Numbers, asked: Numbers, otherwise: Predicted) -> Predicted:
    """The median label of the known rows with the same key, or ``otherwise`` if there is none."""
    order = np.argsort(keys, kind="stable")
    distinct, start = np.unique(keys[order], return_index=True)
    groups = np.split(np.asarray(labels, np.float64)[order], start[1:])
    medians = np.array([np.median(group) for group in groups])
    place = np.minimum(np.searchsorted(distinct, asked), len(distinct) - 1)
    return np.where(distinct[place] == asked, medians[place], otherwise)


def linear(inputs: Numbers, labels: Numbers, asked: Numbers) -> Predicted:
    """Least squares with an intercept, no prediction below 0 [n] from inputs [n, k]."""
    ones = np.ones((len(inputs), 1))
    weights, *_ = np.linalg.lstsq(np.hstack([inputs, ones]), labels, rcond=None)
    predicted: Predicted = asked @ weights[:-1] + weights[-1]
    return np.maximum(predicted, 0)
