"""The files of hidden states and remaining tokens: written in chunks, resumable, never pickled.

A folder holds ``{train,val}_hidden_states.npy`` [N, D], ``{train,val}_remaining_tokens.npy`` [N],
``{train,val}_token_metadata.npy`` [N] (structured, `TOKEN`) and ``metadata.json``. While it grows
there is ``progress.jsonl`` in place of ``metadata.json``: a line for each chunk that is safe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_llmprobe.data.arrays import GrowingArray
from pytest_llmprobe.data.safe_writing import append, sync, whole_lines, write_atomically
from pytest_llmprobe.errors import CasesError

Part: TypeAlias = Literal["train", "val"]
PARTS: tuple[Part, ...] = ("train", "val")

TOKEN = np.dtype(
    [("token_id", "<i4"), ("token_text", "<U32"), ("sample_id", "<i4"), ("step", "<i4")]
)
"""A generated token: its id, the first 32 characters of its text, its sample, its place in it."""

STATES, LABELS, TOKENS = "hidden_states", "remaining_tokens", "token_metadata"
METADATA, PROGRESS = "metadata.json", "progress.jsonl"

Array: TypeAlias = npt.NDArray[Any]


def array_path(folder: Path, part: Part, kind: str) -> Path:
    """Where an array of a data set is."""
    return folder / f"{part}_{kind}.npy"


class ChunkWriter:
    """Appends chunks to a folder's arrays; goes on where a killed run stopped.

    What was written since the last `commit` is cut off when the folder is opened again, so that a
    run that was killed and resumed leaves the bytes of one that was not.

    Args:
        folder: Made if it is not there.
        parameters: What the data depend on, ready for JSON; must be the same when resuming.
        width: Numbers of one hidden state, D.
        dtype: ``float32`` or ``float16``.

    Raises:
        CasesError: The folder holds something else.
    """

    def __init__(
        self, folder: Path, parameters: Mapping[str, Any], width: int, dtype: str = "float32"
    ) -> None:
        self.folder = folder
        self.chunks = 0
        self.samples: list[dict[str, Any]] = []
        self.rows: dict[Part, int] = dict.fromkeys(PARTS, 0)
        self._begin = json.loads(json.dumps({"parameters": parameters, "width": width}))
        self.complete = (folder / METADATA).exists()
        if self.complete:
            self._check_same(read_metadata(folder))
            (folder / PROGRESS).unlink(missing_ok=True)
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CasesError(f"{folder} cannot be made: {error.strerror}") from None
        states = np.dtype(dtype).newbyteorder("<")
        with ExitStack() as opened:
            self._journal = self._recover(opened)
            self._arrays: dict[Part, tuple[GrowingArray, ...]] = {
                part: tuple(
                    opened.enter_context(closing(self._array(part, kind, *shape)))
                    for kind, *shape in ((STATES, states, width), (LABELS, "<i4"), (TOKENS, TOKEN))
                )
                for part in PARTS
            }
            self._opened = opened.pop_all()

    def _array(self, part: Part, kind: str, dtype: npt.DTypeLike, *columns: int) -> GrowingArray:
        kept = self.rows[part] if self.chunks else None
        return GrowingArray(array_path(self.folder, part, kind), dtype, columns, kept)

    def _recover(self, opened: ExitStack) -> BinaryIO:
        """The journal, behind its last whole line, with what it says."""
        path = self.folder / PROGRESS
        journal = opened.enter_context(path.open("r+b" if path.exists() else "x+b"))
        lines = whole_lines(journal)
        if begin := next(lines, None):
            self._check_same(json.loads(begin))
        elif strange := [p.name for p in self.folder.iterdir() if p != path]:
            path.unlink()
            raise CasesError(
                f"{self.folder} holds {strange[0]} and no data set: name another folder"
            )
        else:
            _append(journal, self._begin)
        for line in lines:
            chunk = json.loads(line)
            self.samples += chunk["samples"]
            self.rows = chunk["rows"]
            self.chunks += 1
        return journal

    def _check_same(self, found: Mapping[str, Any]) -> None:
        theirs, ours = found.get("parameters"), self._begin["parameters"]
        if not isinstance(theirs, dict):
            raise CasesError(f"{self.folder} holds no data set of this kind: name another folder")
        if found.get("width", self._begin["width"]) != self._begin["width"] or theirs != ours:
            keys = sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k))
            raise CasesError(
                f"{self.folder} holds a data set with another {' and '.join(keys) or 'width'}: "
                "name another folder"
            )

    def write(self, part: Part, states: Array, labels: Array, tokens: Array) -> None:
        """Append rows to one part; they count from the next `commit` on."""
        assert len(states) == len(labels) == len(tokens)
        for grown, array in zip(self._arrays[part], (states, labels, tokens), strict=True):
            grown.append(array)
        self.rows[part] += len(labels)

    def commit(self, samples: Sequence[Mapping[str, Any]]) -> None:
        """Make safe what was written since the last time, and what is known of its samples."""
        for array in chain(*self._arrays.values()):
            array.sync()
        _append(self._journal, {"rows": self.rows, "samples": list(samples)})
        self.samples += map(dict, samples)
        self.chunks += 1

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """State the arrays' lengths in their files and put ``metadata.json`` beside them."""
        for array in chain(*self._arrays.values()):
            array.finish()
        self.close()
        text = json.dumps({**self._begin, **metadata}, indent=1, allow_nan=False) + "\n"
        write_atomically(self.folder / METADATA, text)
        (self.folder / PROGRESS).unlink()

    def close(self) -> None:
        """Close the files; the folder can be gone on with later."""
        self._opened.close()


def _append(journal: BinaryIO, line: Mapping[str, Any]) -> None:
    append(journal, json.dumps(line, allow_nan=False))
    sync(journal)


def read_metadata(folder: Path) -> dict[str, Any]:
    """What ``metadata.json`` says.

    Raises:
        CasesError: There is none, or it is no JSON object.
    """
    if (folder / PROGRESS).exists() and not (folder / METADATA).exists():
        raise CasesError(f"{folder} is not finished: run the command that makes it again")
    try:
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CasesError(f"{folder} holds no data set that can be read: {error}") from None
    if not isinstance(metadata, dict):
        raise CasesError(f"{folder / METADATA} is no JSON object")
    return metadata


def map_array(folder: Path, part: Part, kind: str) -> Array:
    """An array as it lies on the disk, not read into memory.

    Raises:
        CasesError: It cannot be read.
    """
    path = array_path(folder, part, kind)
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CasesError(f"{path} cannot be read: {error}") from None
    return array
