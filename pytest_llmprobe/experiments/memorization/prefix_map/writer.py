"""Writes the files of a prefix map while its corpus is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib import format as npy

from pytest_llmprobe.data.rows import reason
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.memorization.prefix_map.files import (
    ENTRIES,
    METADATA,
    SKIPPED,
    VERSION,
    Ids,
    PrefixEntry,
    Skipped,
)


class GrowingArray:
    """A .npy file whose number of rows is known when it is closed.

    Args:
        path: A new file.
        dtype: Of its numbers.
        columns: Shape of a row; () for a one-dimensional array.
    """

    def __init__(self, path: Path, dtype: type, columns: tuple[int, ...] = ()) -> None:
        self._dtype, self._columns, self._rows = np.dtype(dtype), columns, 0
        self._file = path.open("xb")
        self._write_header()

    def append(self, rows: Sequence[int] | Ids) -> None:
        """Write rows (n, *columns) at the end."""
        array = np.ascontiguousarray(rows, dtype=self._dtype).reshape(-1, *self._columns)
        self._file.write(array.tobytes())
        self._rows += len(array)

    def _write_header(self) -> None:
        """At the beginning; its room for 21 digits of rows keeps it out of the data."""
        self._file.seek(0)
        header = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False}
        shape = {"shape": (self._rows, *self._columns)}
        npy.write_array_header_1_0(self._file, header | shape)

    def close(self) -> None:
        """Write the number of rows and close the file."""
        with self._file:
            self._write_header()


class PrefixMapWriter:
    """Writes entries as they come; see the module.

    Args:
        folder: A new, empty folder.
        prefix_tokens: P.

    Raises:
        CasesError: From every method: a file cannot be written.
    """

    def __init__(self, folder: Path, prefix_tokens: int) -> None:
        self.entries = self.skipped = self.suffix_tokens = self._bytes = 0
        self._folder = folder
        with _writing(folder):
            self._lines = (folder / ENTRIES).open("xb")
            self._left_out = (folder / SKIPPED).open("xb")
            self._prefix_ids = GrowingArray(folder / "prefix_ids.npy", np.int32, (prefix_tokens,))
            self._suffix_ids = GrowingArray(folder / "suffix_ids.npy", np.int32)
            self._suffix_offsets = GrowingArray(folder / "suffix_offsets.npy", np.int64)
            self._line_offsets = GrowingArray(folder / "line_offsets.npy", np.int64)
            self._suffix_offsets.append([0])
            self._line_offsets.append([0])

    def add(self, item: PrefixEntry | Skipped) -> None:
        """Write an entry, or that a document has none."""
        with _writing(self._folder):
            if isinstance(item, Skipped):
                self._left_out.write(_line(document=item.document, reason=item.reason))
                self.skipped += 1
            else:
                self._add(item)

    def _add(self, entry: PrefixEntry) -> None:
        line = _line(document=entry.document, start=entry.start, prefix=entry.prefix)
        self._bytes += self._lines.write(line)
        self.suffix_tokens += len(entry.suffix_ids)
        self.entries += 1
        self._prefix_ids.append(entry.prefix_ids)
        self._suffix_ids.append(entry.suffix_ids)
        self._suffix_offsets.append([self.suffix_tokens])
        self._line_offsets.append([self._bytes])

    def __enter__(self) -> PrefixMapWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _writing(self._folder), ExitStack() as files:
            arrays = (self._prefix_ids, self._suffix_ids, self._suffix_offsets, self._line_offsets)
            for file in (self._lines, self._left_out, *arrays):
                files.callback(file.close)


def write_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Make a map whole whose other files are closed.

    Raises:
        CasesError: The file cannot be written.
    """
    with _writing(folder):
        text = json.dumps({"version": VERSION, **metadata}, indent=1, sort_keys=True)
        (folder / METADATA).write_text(text, encoding="utf-8")


def _line(**fields: Any) -> bytes:
    return (json.dumps(fields) + "\n").encode()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CasesError(f"{folder} cannot be written: {reason(error)}") from None


@contextmanager
def new_folder(parent: Path, name: str) -> Iterator[Path]:
    """A new folder ``name`` (or ``name-2`` ...), taken away again if what is done in it fails.

    Raises:
        CasesError: It cannot be made.
    """
    folder = parent / name
    with _writing(folder):
        parent.mkdir(parents=True, exist_ok=True)
        for number in count(2):
            try:
                folder.mkdir()
                break
            except FileExistsError:  # another map was made in the same second
                folder = parent / f"{name}-{number}"
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
