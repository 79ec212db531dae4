"""Writes the files of a prefix map while its corpus is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pytest_llmprobe.data.arrays import GrowingArray
from pytest_llmprobe.data.safe_writing import new_folder, write_atomically, writing
from pytest_llmprobe.experiments.memorization.prefix_map.files import (
    CORPUS,
    ENTRIES,
    METADATA,
    SKIPPED,
    VERSION,
    Document,
    PrefixEntry,
    Skipped,
)


class PrefixMapWriter:
    """Writes entries of P prefix tokens as they come into a new, empty folder.

    With ``save`` also the documents that they are from.

    Raises:
        CasesError: From every method: a file cannot be written.
    """

    def __init__(self, folder: Path, prefix_tokens: int, save: bool = False) -> None:
        self.entries = self.skipped = self.suffix_tokens = self._bytes = 0
        self._folder = folder
        with writing(folder):
            self._lines = (folder / ENTRIES).open("xb")
            self._left_out = (folder / SKIPPED).open("xb")
            self._corpus = (folder / CORPUS).open("xb") if save else None
            self._prefix_ids = GrowingArray(folder / "prefix_ids.npy", np.int32, (prefix_tokens,))
            self._suffix_ids = GrowingArray(folder / "suffix_ids.npy", np.int32)
            self._suffix_offsets = GrowingArray(folder / "suffix_offsets.npy", np.int64)
            self._line_offsets = GrowingArray(folder / "line_offsets.npy", np.int64)
            self._suffix_offsets.append([0])
            self._line_offsets.append([0])

    def add_document(self, document: Document) -> None:
        """Keep a document, if the corpus is to be saved."""
        if self._corpus is not None:
            told = {name: value for name, value in document._asdict().items() if value is not None}
            with writing(self._folder):
                self._corpus.write(_line(**told))

    def add(self, item: PrefixEntry | Skipped) -> None:
        """Write an entry, or that a document has none."""
        with writing(self._folder):
            if isinstance(item, Skipped):
                self._left_out.write(_line(document=item.document, reason=item.reason))
                self.skipped += 1
                return
            about = {name: getattr(item, name) for name in ("label", "info")}
            told = {name: value for name, value in about.items() if value is not None}
            line = _line(document=item.document, start=item.start, prefix=item.prefix, **told)
            self._bytes += self._lines.write(line)
            self.suffix_tokens += len(item.suffix_ids)
            self.entries += 1
            self._prefix_ids.append([item.prefix_ids])
            self._suffix_ids.append(item.suffix_ids)
            self._suffix_offsets.append([self.suffix_tokens])
            self._line_offsets.append([self._bytes])

    def __enter__(self) -> PrefixMapWriter:
        return self

    def __exit__(self, *error: object) -> None:
        arrays = (self._prefix_ids, self._suffix_ids, self._suffix_offsets, self._line_offsets)
        with writing(self._folder), ExitStack() as files:
            for file in (self._lines, self._left_out, self._corpus, *arrays):
                if file is not None:
                    files.callback(file.close)
            for array in arrays:
                array.finish()


def write_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Make a map whole whose other files are closed.

    Raises:
        CasesError: The file cannot be written.
    """
    with writing(folder):
        text = json.dumps({"version": VERSION, **metadata}, indent=1, sort_keys=True)
        write_atomically(folder / METADATA, text)


def _line(**fields: Any) -> bytes:
    return (json.dumps(fields) + "\n").encode()


@contextmanager
def map_folder(parent: Path, name: str) -> Iterator[Path]:
    """A new folder ``name`` (or ``name-2`` ...), taken away again if what is done in it fails.

    Raises:
        CasesError: It cannot be made.
    """
    with writing(parent / name):
        parent.mkdir(parents=True, exist_ok=True)
        folder = new_folder(parent, name)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
