"""Small probes that predict from a hidden state how many tokens of an answer remain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from pytest_llmprobe.errors import CasesError, SettingsError

Floats: TypeAlias = npt.NDArray[np.float32]

MOST_HIDDEN = 16
"""Hidden layers of a probe at most."""

WEIGHTS, DESCRIPTION = "probe.safetensors", "probe.json"


@dataclass(frozen=True)
class ProbeConfig:
    """What a probe is and how it is trained.

    Args:
        kind: ``linear`` is softplus(w.h + b), ``mlp`` has hidden layers of ReLUs with dropout
            before that.
        bins: First lengths of bins, as (1, 2, 4, 8): the probe then classifies (cross-entropy) and
            predicts the mean length that its probabilities give. Without, it is trained on
            LogMSE, the mean of (ln(1 + predicted) - ln(1 + actual))^2.
        hidden: Units of each of an MLP's hidden layers, from the states on; one number for one.
        dropout: Share of them that is left out in a training step.
        learning_rate: Of Adam, which trains an MLP; a linear probe is trained with L-BFGS.
        batch_size: Rows of a step of Adam.
        max_epochs: At most this many passes over the training rows, or five steps of L-BFGS each.
        patience: Epochs without a better loss on the rows to stop by, after which training ends.
        seed: Of weights, order and dropout.

    Raises:
        SettingsError: A value is out of range.
    """

    kind: Literal["linear", "mlp"] = "linear"
    bins: tuple[int, ...] = ()
    hidden: int | tuple[int, ...] = (256,)
    dropout: float = 0.1
    learning_rate: float = 3e-3
    batch_size: int = 128
    max_epochs: int = 100
    patience: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "bins", tuple(self.bins))
        units = (self.hidden,) if isinstance(self.hidden, int) else tuple(self.hidden)
        object.__setattr__(self, "hidden", units)
        rising = all(a < b for a, b in pairwise((0, *self.bins)))
        for name, valid, rule in (
            ("kind", self.kind in ("linear", "mlp"), "linear or mlp"),
            ("bins", rising, "rising whole numbers from 1"),
            ("hidden", _are_units(units), f"1 to {MOST_HIDDEN} whole numbers from 1 to 65536"),
            ("dropout", 0 <= self.dropout < 1, "at least 0 and below 1"),
            ("learning_rate", 0 < self.learning_rate < 1, "above 0 and below 1"),
            ("batch_size", self.batch_size > 0, "1 or more"),
            ("max_epochs", self.max_epochs > 0, "1 or more"),
            ("patience", self.patience > 0, "1 or more"),
        ):
            if not valid:
                raise SettingsError(f"{name}={getattr(self, name)!r}: it must be {rule}")


def _are_units(units: tuple[int, ...]) -> bool:
    whole = all(isinstance(n, int) and 0 < n <= 2**16 for n in units)
    return whole and 0 < len(units) <= MOST_HIDDEN


class LengthProbe:
    """A trained probe; ``origin`` says what it was trained on: model, layers, prompts."""

    def __init__(self, config: ProbeConfig, network: Network, origin: Mapping[str, Any]) -> None:
        self.config, self.origin = config, dict(origin)
        self._network = network.eval()

    @torch.inference_mode()
    def predict(self, states: Floats) -> npt.NDArray[np.float64]:
        """Remaining tokens [n], 0 or more, from states [n, D].

        Raises:
            CasesError: The states are not as wide as those it was trained on.
        """
        if states.ndim != 2 or states.shape[1] != len(self._network.mean):
            raise CasesError(
                f"states of shape {states.shape} do not fit a probe of [n, "
                f"{len(self._network.mean)}]: were they read from other layers or another model?"
            )
        lengths = self._network.lengths(torch.tensor(states, dtype=torch.float32))
        predicted: npt.NDArray[np.float64] = lengths.double().numpy()
        return predicted

    def save(self, folder: Path) -> None:
        """Write ``probe.safetensors`` and ``probe.json`` into a folder, made if it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self._network.state_dict(), folder / WEIGHTS)
        description = {"config": asdict(self.config), "origin": self.origin}
        text = json.dumps(description, indent=1, allow_nan=False) + "\n"
        (folder / DESCRIPTION).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> LengthProbe:
        """Read what `save` wrote.

        Raises:
            CasesError: It is not there, damaged, or something else.
        """
        try:
            description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            config = ProbeConfig(**description["config"])
            origin = dict(description["origin"])
            weights = load_file(folder / WEIGHTS)
            with torch.device("meta"):  # no memory for what a damaged description may ask for
                network = Network(config, len(weights["mean"]))
            network.load_state_dict(weights, assign=True)
        except (OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise CasesError(f"{folder} holds no probe that can be read: {error}") from None
        except (SafetensorError, SettingsError) as error:
            raise CasesError(f"{folder} holds a damaged probe: {error}") from None
        return cls(config, network, origin)


class Network(nn.Module):
    """Standardises states [n, D] and maps them to lengths [n] or to scores of bins [n, bins]."""

    mean: torch.Tensor
    scale: torch.Tensor
    centres: torch.Tensor

    def __init__(self, config: ProbeConfig, inputs: int) -> None:
        super().__init__()
        outputs = len(config.bins) + 1  # without bins one number, with them one more than edges
        self._classifies = bool(config.bins)
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.register_buffer("centres", torch.zeros(outputs))
        self.hidden, width = nn.Sequential(), inputs
        assert isinstance(config.hidden, tuple)
        for units in config.hidden if config.kind == "mlp" else ():
            self.hidden.extend([nn.Linear(width, units), nn.ReLU(), nn.Dropout(config.dropout)])
            width = units
        self.head = nn.Linear(width, outputs)

    def standardised(self, states: torch.Tensor) -> torch.Tensor:
        """States [n, D] of mean 0 and variance 1."""
        return (states - self.mean) / self.scale

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """From standardised states lengths [n], or scores of bins [n, bins]."""
        scores: torch.Tensor = self.head(self.hidden(inputs))
        return scores if self._classifies else functional.softplus(scores[:, 0])

    def lengths(self, states: torch.Tensor) -> torch.Tensor:
        """Lengths [n]; of bins, the mean of their training labels under the probabilities."""
        found: torch.Tensor = self(self.standardised(states))
        return torch.mv(found.softmax(-1), self.centres) if self._classifies else found

    def loss(self, inputs: torch.Tensor, labels: torch.Tensor, bins: torch.Tensor) -> torch.Tensor:
        """Of standardised states, summed over the rows: LogMSE, or cross-entropy of the bins."""
        found = self(inputs)
        if self._classifies:
            classes = torch.bucketize(labels, bins, right=True)
            return functional.cross_entropy(found, classes, reduction="sum")
        squares: torch.Tensor = (found.log1p() - labels.log1p()).square()
        return squares.sum()
