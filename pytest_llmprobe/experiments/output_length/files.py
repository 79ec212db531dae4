"""The files of hidden states and remaining tokens: written in chunks, resumable, never pickled.

A folder holds ``{train,val}_hidden_states.npy`` [N, D], ``{train,val}_remaining_tokens.npy`` [N],
``{train,val}_token_metadata.npy`` [N] (structured, `TOKEN`) and ``metadata.json``. While it grows
there is ``progress.jsonl`` in place of ``metadata.json``: a line for each chunk that is safe.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_llmprobe.errors import CasesError

Part: TypeAlias = Literal["train", "val"]
PARTS: tuple[Part, ...] = ("train", "val")

TOKEN = np.dtype(
    [("token_id", "<i4"), ("token_text", "<U32"), ("sample_id", "<i4"), ("step", "<i4")]
)
"""A generated token: its id, the first 32 characters of its text, its sample, its place in it."""

STATES, LABELS, TOKENS = "hidden_states", "remaining_tokens", "token_metadata"
KINDS = (STATES, LABELS, TOKENS)
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
        self._shapes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
            STATES: (np.dtype(dtype).newbyteorder("<"), (width,)),
            LABELS: (np.dtype("<i4"), ()),
            TOKENS: (TOKEN, ()),
        }
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
        with ExitStack() as opened:
            self._journal = self._recover(opened)
            self._files = {
                (part, kind): self._open(part, kind, opened) for part in PARTS for kind in KINDS
            }
            self._opened = opened.pop_all()

    def _recover(self, opened: ExitStack) -> BinaryIO:
        """The journal, behind its last whole line, with what it says."""
        path = self.folder / PROGRESS
        journal = opened.enter_context(path.open("r+b" if path.exists() else "x+b"))
        lines = journal.read().split(b"\n")[:-1]  # the last one is empty, or torn by the kill
        if lines:
            self._check_same(json.loads(lines[0]))
        elif strange := [p.name for p in self.folder.iterdir() if p != path]:
            path.unlink()
            raise CasesError(
                f"{self.folder} holds {strange[0]} and no data set: name another folder"
            )
        for line in lines[1:]:
            chunk = json.loads(line)
            self.samples += chunk["samples"]
            self.rows = chunk["rows"]
            self.chunks += 1
        journal.seek(sum(len(line) + 1 for line in lines))
        journal.truncate()
        if not lines:
            _append(journal, self._begin)
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

    def _open(self, part: Part, kind: str, opened: ExitStack) -> BinaryIO:
        """An array's file, cut behind its last safe row."""
        path, (dtype, shape) = array_path(self.folder, part, kind), self._shapes[kind]
        header = _header(dtype, (0, *shape))
        length = len(header) + self.rows[part] * dtype.itemsize * int(np.prod(shape))
        file = opened.enter_context(path.open("r+b" if path.exists() else "x+b"))
        size = file.seek(0, os.SEEK_END)
        if size < length and self.chunks:
            raise CasesError(
                f"{path} is damaged: it has {size} bytes, and {length} were written; delete the "
                "folder and begin again"
            )
        file.seek(0)
        file.write(header)
        file.seek(length)
        file.truncate()
        return file

    def write(self, part: Part, states: Array, labels: Array, tokens: Array) -> None:
        """Append rows to one part; they count from the next `commit` on."""
        for kind, array in zip(KINDS, (states, labels, tokens), strict=True):
            dtype, shape = self._shapes[kind]
            assert array.shape == (len(labels), *shape)
            self._files[part, kind].write(np.ascontiguousarray(array, dtype).tobytes())
        self.rows[part] += len(labels)

    def commit(self, samples: Sequence[Mapping[str, Any]]) -> None:
        """Make safe what was written since the last time, and what is known of its samples."""
        for file in self._files.values():
            _sync(file)
        _append(self._journal, {"rows": self.rows, "samples": list(samples)})
        self.samples += map(dict, samples)
        self.chunks += 1

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """State the arrays' lengths in their files and put ``metadata.json`` beside them."""
        for (part, kind), file in self._files.items():
            dtype, shape = self._shapes[kind]
            file.seek(0)
            file.write(_header(dtype, (self.rows[part], *shape)))
            _sync(file)
        self.close()
        text = json.dumps({**self._begin, **metadata}, indent=1, allow_nan=False) + "\n"
        temporary = self.folder / f"{METADATA}.part"
        with temporary.open("wb") as file:
            file.write(text.encode())
            _sync(file)
        temporary.replace(self.folder / METADATA)
        (self.folder / PROGRESS).unlink()

    def close(self) -> None:
        """Close the files; the folder can be gone on with later."""
        self._opened.close()


def _append(journal: BinaryIO, line: Mapping[str, Any]) -> None:
    journal.write(json.dumps(line, allow_nan=False).encode() + b"\n")
    _sync(journal)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The head of a .npy file; NumPy leaves room in it for any number of rows."""
    buffer = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


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
