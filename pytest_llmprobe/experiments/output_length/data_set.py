"""A finished data set of hidden states: arrays mapped from disk, and how they are split."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.experiments.output_length.data_set_files import (
    LABELS,
    METADATA,
    PARTS,
    STATES,
    TOKEN,
    TOKENS,
    Part,
    map_array,
    read_metadata,
)
from pytest_llmprobe.experiments.output_length.requests import (
    HeldOut,
    LengthRequest,
    held_out,
    parted,
)

READ = 4096
"""Rows that are read at a time where all are wanted."""

SAMPLE = {"sample_id", "part", "prompt", "word", "count", "phrasing"}

Rows: TypeAlias = npt.NDArray[np.intp]
Floats: TypeAlias = npt.NDArray[np.float32]
Whole: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Arrays:
    """One part as it lies on the disk: for scikit-learn, or torch.from_numpy of a slice."""

    states: npt.NDArray[Any]  # [N, D], float32 or float16
    labels: Whole  # tokens that remain after each one [N]
    tokens: npt.NDArray[Any]  # structured [N], see `data_set_files.TOKEN`


@dataclass(frozen=True, eq=False)
class Split:
    """Numbers of rows, no sample in two of them."""

    train: Rows  # to fit a probe on
    stop: Rows  # to end the fitting by
    test: Rows  # what is held out


@dataclass(frozen=True, eq=False)
class LengthData:
    """Hidden states and how many tokens remained; rows of both parts are numbered through."""

    # What metadata.json says: parameters, model, statistics, samples.
    metadata: dict[str, Any] = field(repr=False)
    layers: tuple[int, ...]  # whose states lie side by side, counted from the embeddings
    hidden_size: int  # numbers of one layer's state
    train: Arrays = field(repr=False)  # of the first rows
    val: Arrays = field(repr=False)  # of the others

    def __len__(self) -> int:
        return len(self.train.labels) + len(self.val.labels)

    @property
    def labels(self) -> Whole:
        """Remaining tokens of every row [N]."""
        return np.concatenate([self.train.labels, self.val.labels])

    def tokens(self, name: str) -> npt.NDArray[Any]:
        """``token_id``, ``token_text``, ``sample_id`` or ``step`` of every row [N]."""
        return np.concatenate([self.train.tokens[name], self.val.tokens[name]])

    @property
    def asked(self) -> Whole:
        """How many times the word was asked for, for every row [N]; 0 where nobody said."""
        counts = {sample["sample_id"]: sample["count"] or 0 for sample in self.metadata["samples"]}
        return np.array([counts[sample] for sample in self.tokens("sample_id").tolist()], np.int32)

    def norms(self, layer: int) -> Floats:
        """Euclidean norms of one layer's states [N], read from disk some at a time.

        Raises:
            SettingsError: The data have no such layer.
        """
        rows = np.array_split(np.arange(len(self)), len(self) // READ + 1)
        return np.concatenate([np.linalg.norm(self.states(some, layer), axis=1) for some in rows])

    def states(self, rows: Rows, layer: int | None = None) -> Floats:
        """The states of some rows, read from disk [rows, D], float32.

        Args:
            rows: Numbers from 0 to N - 1, in any order.
            layer: The states of this layer of the model only [rows, hidden size].

        Raises:
            SettingsError: The data have no such layer.
        """
        first_column, width = 0, len(self.layers) * self.hidden_size
        if layer is not None:
            if layer not in self.layers:
                known = ", ".join(map(str, self.layers))
                raise SettingsError(f"layer {layer} is not in the data, whose layers are {known}")
            width = self.hidden_size
            first_column = self.layers.index(layer) * width
        columns = slice(first_column, first_column + width)
        border = len(self.train.labels)
        found = np.empty((len(rows), width), np.float32)
        first = rows < border
        found[first] = self.train.states[rows[first], columns]
        found[~first] = self.val.states[rows[~first] - border, columns]
        return found

    def split(self, by: HeldOut | None = None, share: float = 0.2, seed: int = 0) -> Split:
        """Hold out whole samples.

        Args:
            by: What is held out, see `requests.held_out`; None for the part ``val``.
            share: How much of it.
            seed: Of the draw.

        Raises:
            CasesError: A part would be empty.
            SettingsError: The data cannot be split in this way.
        """
        if by is None:
            test = [sample["part"] == "val" for sample in self.metadata["samples"]]
        else:
            test = held_out(self._requests(), by, share, seed)
        return self._split(test, seed)

    def folds(self, by: HeldOut = "sample", n: int = 5, seed: int = 0) -> list[Split]:
        """Splits that hold out every sample once, of n parts about equal in size.

        Args:
            by: What of a test sample no other one of its split has, see `requests.held_out`.
            n: How many; fewer if there are fewer values.
            seed: Of the draw.

        Raises:
            CasesError: A part would be empty.
            SettingsError: The data cannot be split in this way.
        """
        parts = parted(self._requests(), by, n, seed)
        return [
            self._split([part == fold for part in parts], seed) for fold in range(max(parts) + 1)
        ]

    def _requests(self) -> list[LengthRequest]:
        return [
            LengthRequest(*(sample[name] for name in ("prompt", "word", "count", "phrasing")))
            for sample in self.metadata["samples"]
        ]

    def _split(self, test: list[bool], seed: int) -> Split:
        """These samples are held out; some of the others, drawn, are to stop by."""
        samples, requests = self.metadata["samples"], self._requests()
        kept = [i for i, is_test in enumerate(test) if not is_test]
        if len(kept) < 2 or len(kept) == len(samples):
            raise CasesError(
                f"of {len(samples)} samples {len(kept)} are left for training: that is no split; "
                "make more samples, or ask the model what it does"
            )
        stops = held_out([requests[i] for i in kept], "sample", 0.15, seed)
        place = {sample["sample_id"]: i for i, sample in enumerate(samples)}
        part = np.array([2 if is_test else 0 for is_test in test])
        part[[i for i, stops_there in zip(kept, stops, strict=True) if stops_there]] = 1
        of_row = part[[place[sample] for sample in self.tokens("sample_id").tolist()]]
        return Split(*(np.flatnonzero(of_row == number) for number in range(3)))


def load_length_data(folder: Path) -> LengthData:
    """Open a finished data set; its states stay on the disk.

    Raises:
        CasesError: It is not finished, damaged, or something else; names the file.
    """
    metadata = read_metadata(folder)
    layers, size, samples = (metadata.get(k) for k in ("layers", "hidden_size", "samples"))
    parameters = metadata.get("parameters")
    if not (
        isinstance(parameters, dict)
        and isinstance(parameters.get("model"), dict)
        and isinstance(layers, list)
        and all(isinstance(layer, int) for layer in layers)
        and isinstance(size, int)
        and isinstance(samples, list)
    ):
        raise CasesError(f"{folder / METADATA} is not that of a hidden-state data set")
    train, val = (_arrays(folder, part, len(layers) * size) for part in PARTS)
    data = LengthData(metadata, tuple(layers), size, train, val)
    described = {s.get("sample_id") for s in samples if isinstance(s, dict) and s.keys() >= SAMPLE}
    if not described.issuperset(data.tokens("sample_id").tolist()):
        raise CasesError(f"{folder / METADATA} does not describe all samples of the arrays")
    return data


def _arrays(folder: Path, part: Part, width: int) -> Arrays:
    states, labels, tokens = (map_array(folder, part, kind) for kind in (STATES, LABELS, TOKENS))
    n = len(labels)
    right = (
        states.shape == (n, width)
        and states.dtype in (np.float32, np.float16)
        and labels.shape == tokens.shape == (n,)
        and labels.dtype == np.int32
        and tokens.dtype == TOKEN
    )
    if not right:
        raise CasesError(f"{folder}: the arrays of {part!r} do not fit together; make them again")
    return Arrays(states, labels, tokens)
