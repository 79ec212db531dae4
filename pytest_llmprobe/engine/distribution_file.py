"""The file of next-token distributions: what a baseline gave at each token of its answers.

An .npz archive (NumPy's, never pickled, nothing compressed), so that its arrays are mapped and a
case's few rows read: ``header`` is JSON as UTF-8 bytes and says model, tokenizer, k and the cases;
``ids``, ``codes`` [T, k], ``rest``, ``answer`` and ``tokens`` [T] hold all cases one after another.
"""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.statistics.divergence import STEPS, Distributions

FORMAT = "llmprobe-distributions-1"
ARRAYS = {"ids": "uint32", "codes": "uint16", "rest": "float32", "answer": "float32"}
TOKENS = "tokens"
MOST_HEADER = 2**28
LOCAL_HEADER = 30


@dataclass(frozen=True, eq=False)
class KeptAnswer:
    """A baseline's answer and its distributions.

    Args:
        name: Node id of the case, or a window's name.
        prompt_hash: Of the prompt's token ids.
        text: What the answer's tokens say, without those that end it.
        text_tokens: How many they are.
        tokens: The answer's token ids, those that end it too [T].
        found: At each of them.
    """

    name: str
    prompt_hash: str
    text: str
    text_tokens: int
    tokens: tuple[int, ...]
    found: Distributions


@dataclass(frozen=True)
class Maker:
    """Whose distributions a file holds: the model's name, its tokenizer's hash, tokens a place."""

    model: str
    tokenizer_hash: str
    k: int


def write_distributions(path: Path, maker: Maker, answers: Iterable[KeptAnswer]) -> None:
    """Write a whole file or none.

    Raises:
        ReportError: It cannot be written.
    """
    kept = list(answers)
    cases = [
        {
            **{name: getattr(one, name) for name in ("name", "prompt_hash", "text", "text_tokens")},
            "tokens": len(one.tokens),
        }
        for one in kept
    ]
    header = {"format": FORMAT, "steps": STEPS, **asdict(maker), "cases": cases}
    arrays = {name: _joined(kept, name, maker.k, kind) for name, kind in ARRAYS.items()}
    arrays[TOKENS] = np.array([t for one in kept for t in one.tokens], np.uint32)
    if arrays["ids"].size == 0 or arrays["ids"].max() < 2**16:
        arrays["ids"] = arrays["ids"].astype(np.uint16)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        temporary.replace(path)
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _joined(kept: Sequence[KeptAnswer], name: str, k: int, kind: str) -> npt.NDArray[Any]:
    shape = (0, k) if name in ("ids", "codes") else (0,)
    empty = np.zeros(shape, kind)
    return np.concatenate([empty, *(getattr(one.found, name) for one in kept)]).astype(kind)


class DistributionFile(Mapping[str, KeptAnswer]):
    """A file of distributions, by the name of the case; the rows of one are read when asked for.

    Attributes:
        maker: Whose they are.

    Raises:
        ReportError: It cannot be read, is cut short, or is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            arrays = _mapped(path)
            header = json.loads(arrays["header"][:MOST_HEADER].tobytes())
            if header["format"] != FORMAT or header["steps"] != STEPS:
                raise ValueError("another format")
            self.maker = Maker(
                str(header["model"]), str(header["tokenizer_hash"]), int(header["k"])
            )
            self._arrays = arrays
            self._cases = self._read(header["cases"])
        except OSError as error:
            raise ReportError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, RecursionError, zipfile.BadZipFile) as error:
            raise ReportError(
                f"{path} is no whole file of distributions ({error}): make the baseline again "
                "with --llmprobe-save"
            ) from None

    def _read(self, cases: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Mapping[str, Any], int]]:
        """For each case what the header says of it, and its first row."""
        found, first = {}, 0
        for case in cases:
            count, text = case["tokens"], case["text_tokens"]
            if not (isinstance(count, int) and isinstance(text, int) and 0 <= text <= count):
                raise ValueError("impossible counts")
            if not all(isinstance(case[n], str) for n in ("name", "prompt_hash", "text")):
                raise TypeError("names that are none")
            found[case["name"]] = (case, first)
            first += count
        for name in (*ARRAYS, TOKENS):
            array = self._arrays[name]
            shape = (first, self.maker.k) if name in ("ids", "codes") else (first,)
            kinds = ("uint16", "uint32") if name == "ids" else (ARRAYS.get(name, "uint32"),)
            if array.shape != shape or array.dtype.name not in kinds:
                raise ValueError(f"{name} is {array.dtype.name} {array.shape}, not {shape}")
        return found

    def __getitem__(self, name: str) -> KeptAnswer:
        case, first = self._cases[name]
        rows = slice(first, first + case["tokens"])
        parts = {part: np.array(self._arrays[part][rows]) for part in ARRAYS}
        return KeptAnswer(
            name,
            case["prompt_hash"],
            case["text"],
            case["text_tokens"],
            tuple(int(token) for token in self._arrays[TOKENS][rows]),
            Distributions(**parts),
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._cases)

    def __len__(self) -> int:
        return len(self._cases)


def _mapped(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an archive, each a map of its own part of the file.

    Raises:
        ValueError: Something is compressed, pickled, or longer than the file.
        zipfile.BadZipFile: It is no archive.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename} is compressed")
            file.seek(member.header_offset + LOCAL_HEADER - 4)
            name, extra = struct.unpack("<HH", file.read(4))
            file.seek(name + extra, os.SEEK_CUR)
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(file)
            start, length = file.tell(), int(np.prod(shape, dtype=object)) * dtype.itemsize
            if dtype.hasobject or fortran or start + length > size:
                raise ValueError(f"{member.filename} is not what it says")
            arrays[member.filename.removesuffix(".npy")] = (
                np.memmap(path, dtype, "r", offset=start, shape=shape)
                if length
                else np.zeros(shape, dtype)
            )
    return arrays
