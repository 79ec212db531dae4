"""How much better a probe predicts the remaining tokens than all that can be guessed without it.

A number that falls by one at each step is easily guessed: a probe says something of the model only
where it is better than every baseline that sees no state. So the figure to judge by is the skill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_llmprobe.experiments.output_length.baselines import (
    NOTHING,
    Metrics,
    Numbers,
    Predicted,
    baseline_predictions,
    metrics,
)
from pytest_llmprobe.experiments.output_length.data_set import LengthData, Rows, Split
from pytest_llmprobe.statistics.intervals import Interval

RESAMPLES, RESAMPLES_AT_ONCE = 2_000, 100


class Predictor(Protocol):
    """A trained probe."""

    def predict(self, states: npt.NDArray[np.float32]) -> Predicted:
        """Remaining tokens [n] from states [n, D]."""


ReadStates: TypeAlias = Callable[[Rows], npt.NDArray[np.float32]]
Fit: TypeAlias = Callable[[ReadStates, Numbers, Rows, Rows], Predictor]
"""Trains a probe: states by rows, labels [N], rows to train on, rows to stop by.

`whitebox.length_probe_training.train_probe` with a config is one.
"""


@dataclass(frozen=True, eq=False)
class Judgement:
    """A probe beside the baselines."""

    probe: Predictor
    predicted: Predicted  # its predictions for the test rows [test rows]
    metrics: dict[str, Metrics]  # of ``probe`` and of each baseline, see `baselines.metrics`
    best: str  # the baseline with the lowest mean absolute error
    skill: float | None  # the probe's over that baseline, see `skill`
    interval: Interval | None  # of the skill, see `skill_interval`
    control: float | None  # of the probe trained on shuffled labels, over the other baselines


def judge(
    data: LengthData, split: Split, fit: Fit, layer: int | None = None, seed: int = 0
) -> Judgement:
    """Train a probe and set it beside every baseline, itself on shuffled labels among them.

    It sees the states of one layer, or of all that the data hold; the seed is that of the shuffling
    and of the interval.

    Raises:
        CasesError: There is nothing to train on or to test.
    """

    def states(rows: Rows) -> npt.NDArray[np.float32]:
        return data.states(rows, layer)

    labels, known, test = data.labels, np.union1d(split.train, split.stop), split.test
    shuffled = labels.copy()
    shuffled[known] = np.random.default_rng(seed).permutation(labels[known])
    probe = fit(states, labels, split.train, split.stop)
    control = fit(states, shuffled, split.train, split.stop)
    predictions = {
        "probe": predict(probe, states, test),
        **baseline_predictions(data, split),
        "shuffled_labels": predict(control, states, test),
    }
    mean = float(labels[known].mean())
    measured = {name: metrics(p, labels[test], mean) for name, p in predictions.items()}
    errors = {name: np.abs(p - labels[test]) for name, p in predictions.items()}
    maes = {name: float(error.mean()) for name, error in errors.items()}
    probe_errors, probe_mae = errors.pop("probe"), maes.pop("probe")
    best = min(maes, key=lambda name: maes[name])
    control_mae = maes.pop("shuffled_labels")
    return Judgement(
        probe=probe,
        predicted=predictions["probe"],
        metrics=measured,
        best=best,
        skill=skill(probe_mae, min(control_mae, *maes.values())),
        interval=skill_interval(
            probe_errors, list(errors.values()), data.tokens("sample_id")[test], seed=seed
        ),
        control=skill(control_mae, min(maes.values())),
    )


def predict(probe: Predictor, states: ReadStates, rows: Rows, batch: int = 4096) -> Predicted:
    """A probe's predictions for some rows, a batch of states in memory at a time."""
    parts = [probe.predict(states(rows[i : i + batch])) for i in range(0, len(rows), batch)]
    return np.concatenate(parts) if parts else np.empty(0)


def skill(mae: float, baseline: float) -> float | None:
    """1 - MAE / MAE of a baseline: 1 is perfect, 0 no better than it, negative worse.

    None if the baseline is exact, so that nothing could be better: as where every word is one
    token and every answer right. Ask for words of different numbers of tokens then.
    """
    return None if baseline < NOTHING else 1 - mae / baseline


def skill_interval(
    probe: Numbers,
    baselines: list[npt.NDArray[np.float64]],
    samples: npt.NDArray[Any],
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """Percentile bootstrap interval of a probe's skill over the best of some baselines.

    Whole samples are drawn with replacement (Efron and Tibshirani 1993, chapter 13), as the tokens
    of one answer depend on one another, and the best baseline is chosen anew in every draw. The
    probe stays as it was trained, so the interval speaks of other answers, not of other probes.

    Args:
        probe: Absolute errors of the probe [n].
        baselines: Those of each baseline, [n] each.
        samples: The sample of each row [n].
        confidence: Two-sided coverage, between 0 and 1.
        seed: Of the draws.

    Returns:
        Lower and upper bound, or None if there is one sample only, or a baseline is exact in a
        draw: that says nothing.
    """
    _, place = np.unique(samples, return_inverse=True)
    means = [np.bincount(place, errors / len(place)) for errors in (probe, *baselines)]
    sums = np.array(means, np.float64)  # over all rows, split up by sample [1 + baselines, samples]
    if sums.shape[1] < 2:
        return None
    totals = np.concatenate(list(resampled(sums, np.random.default_rng(seed))))
    best = totals[:, 1:].min(axis=1)
    if best.min() < NOTHING:
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(1 - totals[:, 0] / best, [tail, 1 - tail])
    return float(low), float(high)


def resampled(
    sums: npt.NDArray[np.float64], rng: np.random.Generator
) -> Iterator[npt.NDArray[np.float64]]:
    """Sums over resampled columns, some [resamples, k] at a time, from sums [k, samples]."""
    n = sums.shape[1]
    for _ in range(RESAMPLES // RESAMPLES_AT_ONCE):
        yield rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES_AT_ONCE) @ sums.T


def layer_curve(
    data: LengthData, split: Split, fit: Fit, seed: int = 0
) -> list[dict[str, float | None]]:
    """Skill and metrics of one probe for each layer of the data, from the lowest up.

    Returns:
        ``layer``, ``skill``, ``low`` and ``high`` (its interval), ``control``, and the probe's
        `baselines.metrics`, for each layer.
    """
    curve: list[dict[str, float | None]] = []
    for layer in sorted(data.layers):
        judged = judge(data, split, fit, layer, seed)
        low, high = judged.interval or (None, None)
        point = {"layer": layer, "skill": judged.skill, "low": low, "high": high}
        curve.append({**point, "control": judged.control, **judged.metrics["probe"]})
    return curve
