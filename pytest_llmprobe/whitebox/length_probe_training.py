"""Training of the probes of `length_probe`: batches from disk, early stopping, best weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.whitebox.length_probe import LengthProbe, Network, ProbeConfig

Rows: TypeAlias = npt.NDArray[np.intp]
ReadStates: TypeAlias = Callable[[Rows], npt.NDArray[np.float32]]
ReadPlaces: TypeAlias = Callable[[Rows], torch.Tensor]
SummedLoss: TypeAlias = Callable[[Rows], torch.Tensor]
"""By place among the rows to train on, or among those to stop by."""

READ = 4096
"""Rows that are read at a time where all are wanted."""

HELD_BYTES = 2**28
"""States that are read once and kept; more are read from disk at each pass."""


def train_probe(
    states: ReadStates,
    labels: npt.NDArray[Any],
    train: Rows,
    stop: Rows,
    config: ProbeConfig,
    origin: Mapping[str, Any] | None = None,
) -> LengthProbe:
    """Train until the loss on the rows to stop by no longer falls; keep the best weights.

    Args:
        states: Reads the states [n, D] of rows; called for a batch at a time.
        labels: Remaining tokens of every row [N].
        train: Rows to train on.
        stop: Rows of other samples to stop by.
        config: What to train and how.
        origin: What the probe is to say of its data.

    Raises:
        CasesError: There are no rows to train on or to stop by.
    """
    if not len(train) or not len(stop):
        raise CasesError(
            f"{len(train)} rows to train on and {len(stop)} to stop by: more are needed"
        )
    y, bins = torch.as_tensor(np.asarray(labels), dtype=torch.float32), torch.tensor(config.bins)
    read, read_stop = _held(states, train), _held(states, stop)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = Network(config, read(np.arange(1)).shape[1])
        _standardise(network, read, y[train], bins)
        read = _standardised(network, read, len(train))  # what was held as it is goes
        read_stop = _standardised(network, read_stop, len(stop))
        loss = _summed_loss(network, read, y[train], bins)
        stop_loss = _summed_loss(network, read_stop, y[stop], bins)
        epoch = (_quasi_newton if config.kind == "linear" else _adam)(
            network, loss, len(train), config
        )
        best, best_loss, waited = network.state_dict(), math.inf, 0
        for _ in range(config.max_epochs):
            network.train()
            epoch()
            mean_loss = _mean_loss(network, stop_loss, len(stop))
            waited += 1
            if mean_loss < best_loss:
                best = {name: value.clone() for name, value in network.state_dict().items()}
                best_loss, waited = mean_loss, 0
            if waited == config.patience:
                break
    network.load_state_dict(best)
    return LengthProbe(config, network, origin or {})


def _held(states: ReadStates, rows: Rows) -> ReadPlaces:
    """Reads by place among some rows; they stay in memory if they are few."""
    if len(rows) * states(rows[:1]).nbytes > HELD_BYTES:
        return lambda places: torch.from_numpy(states(rows[places]))
    held = torch.from_numpy(states(rows))
    return lambda places: _taken(held, places)


def _standardised(network: Network, read: ReadPlaces, rows: int) -> ReadPlaces:
    """The same of so many rows, standardised: once for all if they are few."""
    if rows * network.mean.nbytes > HELD_BYTES:
        return lambda places: network.standardised(read(places))
    held = network.standardised(read(np.arange(rows)))
    return lambda places: _taken(held, places)


def _taken(held: torch.Tensor, places: Rows) -> torch.Tensor:
    """Rows of what is in memory, without a copy where they follow one another."""
    first, end = int(places[0]), int(places[-1]) + 1
    if end - first == len(places):  # ascending, and each once
        return held[first:end]
    return held.index_select(0, torch.from_numpy(places))


def _standardise(
    network: Network, read: ReadPlaces, labels: torch.Tensor, bins: torch.Tensor
) -> None:
    """Set mean and scale of the inputs, what the bins mean, and a bias to begin with."""
    total, squares = torch.zeros(2, len(network.mean), dtype=torch.float64)
    for places in _chunks(len(labels)):
        total += read(places).double().sum(0)
    mean = total / len(labels)
    for places in _chunks(len(labels)):
        squares += (read(places).double() - mean).square().sum(0)
    scale = (squares / len(labels)).sqrt()
    network.mean.copy_(mean)
    network.scale.copy_(torch.where(scale > 1e-6 * mean.abs().clamp(min=1e-6), scale, 1.0))
    if len(bins):
        classes = torch.bucketize(labels, bins, right=True)
        first = torch.cat([torch.zeros(1), bins])
        for label in range(len(first)):
            members = labels[classes == label]
            network.centres[label] = members.mean() if len(members) else first[label]
    else:
        start = max(0.1, math.expm1(labels.log1p().mean().item()))
        nn.init.constant_(network.head.bias, start + math.log(-math.expm1(-start)))  # of softplus


def _chunks(n: int) -> list[Rows]:
    return np.array_split(np.arange(n), math.ceil(n / READ))


def _summed_loss(
    network: Network, read: ReadPlaces, labels: torch.Tensor, bins: torch.Tensor
) -> SummedLoss:
    return lambda places: network.loss(read(places), labels[places], bins)


def _quasi_newton(
    network: Network, loss: SummedLoss, rows: int, config: ProbeConfig
) -> Callable[[], object]:
    """Five iterations of L-BFGS on all rows: a linear probe's inputs differ too much for Adam."""
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=5, history_size=10, line_search_fn="strong_wolfe"
    )

    def gradient() -> float:
        optimizer.zero_grad()
        total = 0.0
        for places in _chunks(rows):
            part = loss(places) / rows
            part.backward()
            total += part.item()
        return total

    return lambda: optimizer.step(gradient)


def _adam(
    network: Network, loss: SummedLoss, rows: int, config: ProbeConfig
) -> Callable[[], object]:
    """All rows once, in batches."""
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)

    def epoch() -> None:
        for batch in torch.randperm(rows).split(config.batch_size):
            places = batch.sort().values.numpy()  # read from disk in order
            optimizer.zero_grad()
            (loss(places) / len(places)).backward()
            optimizer.step()

    return epoch


@torch.inference_mode()
def _mean_loss(network: Network, loss: SummedLoss, rows: int) -> float:
    network.eval()
    return math.fsum(loss(places).item() for places in _chunks(rows)) / rows
