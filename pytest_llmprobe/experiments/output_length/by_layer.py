"""What each layer knows, with every answer held out once: errors, R^2 and skill with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from pytest_llmprobe.experiments.output_length.baselines import (
    NOTHING,
    Predicted,
    baseline_predictions,
    prompt_prediction,
)
from pytest_llmprobe.experiments.output_length.data_set import LengthData, Split
from pytest_llmprobe.experiments.output_length.requests import HeldOut
from pytest_llmprobe.experiments.output_length.skill import (
    Fit,
    predict,
    resampled,
    skill,
    skill_interval,
)
from pytest_llmprobe.statistics.intervals import Interval

MEAN = "mean"
"""The guess that R^2 compares with; no constant has a smaller squared error."""


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval."""

    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Predictor:
    """A guess, or the probe of one layer, over all answers, each predicted without having seen it.

    Intervals are percentiles of a bootstrap over whole answers, see `skill.skill_interval`.
    """

    name: str  # of the guess, or "layer 20"
    mae: Figure  # mean absolute error, tokens
    r2: Figure  # 1 - squared error / that of the mean label of the answers trained on
    over_mean: Figure | None = None  # of a probe: 1 - MAE / MAE of guessing that mean
    over_best: Figure | None = None  # of a probe: 1 - MAE / MAE of the best of all guesses


def skill_by_layer(
    data: LengthData,
    fit: Fit,
    by: HeldOut = "sample",
    folds: int = 5,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Predictor]:
    """Train a probe of every layer in each fold, and set all beside what sees no state.

    Args:
        data: States and labels.
        fit: Trains a probe.
        by: What a test answer has that no answer trained on has, see `requests.held_out`.
        folds: How many parts the answers are dealt out to; each is held out once.
        seed: Of folds and intervals.
        on_progress: Told how many probes are trained, of how many.

    Returns:
        The guesses: ``mean``, those of `baselines.baseline_predictions`, and ``prompt``, see
        `baselines.prompt_prediction`; then a probe for each layer, from the lowest up.

    Raises:
        CasesError: There are too few answers.
        SettingsError: The data cannot be split in this way.
    """
    splits, layers = data.folds(by, folds, seed), sorted(data.layers)
    guesses: dict[str, Predicted] = {}
    probes = {f"layer {layer}": np.empty(len(data)) for layer in layers}
    done = 0
    for split in splits:
        for name, predicted in _guesses(data, split).items():
            guesses.setdefault(name, np.empty(len(data)))[split.test] = predicted
        for layer in layers:
            states = partial(data.states, layer=layer)
            probe = fit(states, data.labels, split.train, split.stop)
            probes[f"layer {layer}"][split.test] = predict(probe, states, split.test)
            done += 1
            if on_progress is not None:
                on_progress(done, len(splits) * len(layers))
    return _judged(data, guesses, probes, seed)


def _guesses(data: LengthData, split: Split) -> dict[str, Predicted]:
    known = np.union1d(split.train, split.stop)
    mean = np.full(len(split.test), data.labels[known].mean())
    others = baseline_predictions(data, split)
    return {MEAN: mean, **others, "prompt": prompt_prediction(data, split)}


def _judged(
    data: LengthData, guesses: dict[str, Predicted], probes: dict[str, Predicted], seed: int
) -> list[Predictor]:
    labels, samples = data.labels, data.tokens("sample_id")
    errors = {name: np.abs(p - labels) for name, p in (guesses | probes).items()}
    others = [errors[name] for name in guesses]
    best = min(float(error.mean()) for error in others)
    ratio = partial(_ratio, samples=samples, seed=seed)
    found = []
    for name, error in errors.items():
        mae = ratio(error, np.ones(len(error)))
        r2 = _less(ratio(error**2, errors[MEAN] ** 2))
        if name in guesses:
            found.append(Predictor(name, mae, r2))
            continue
        over_best = Figure(
            skill(float(error.mean()), best), skill_interval(error, others, samples, seed=seed)
        )
        found.append(Predictor(name, mae, r2, _less(ratio(error, errors[MEAN])), over_best))
    return found


def _ratio(
    above: npt.NDArray[np.float64],
    below: npt.NDArray[np.float64],
    samples: npt.NDArray[np.int64],
    seed: int,
) -> Figure:
    """The sum of ``above`` over that of ``below``, both [rows], whole samples resampled."""
    if below.sum() < NOTHING:
        return Figure(None, None)
    value = float(above.sum() / below.sum())
    _, place = np.unique(samples, return_inverse=True)
    sums = np.array([np.bincount(place, numbers) for numbers in (above, below)])
    totals = np.concatenate(list(resampled(sums, np.random.default_rng(seed))))
    if sums.shape[1] < 2 or totals[:, 1].min() < NOTHING:
        return Figure(value, None)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])
    return Figure(value, (float(low), float(high)))


def _less(ratio: Figure) -> Figure:
    """1 - a ratio."""
    value = None if ratio.value is None else 1 - ratio.value
    ends = ratio.interval
    return Figure(value, None if ends is None else (1 - ends[1], 1 - ends[0]))
