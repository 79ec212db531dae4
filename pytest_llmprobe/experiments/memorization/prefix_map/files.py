"""The files of a prefix map, and how they are read: memory-mapped, an entry at a time.

A folder with

- ``entries.jsonl``: of each entry its document, the place of its prefix, and the prefix as text,
  with the document's label and info if it has them;
- ``prefix_ids.npy`` (N, P) int32, ``suffix_ids.npy`` (S,) int32 and ``suffix_offsets.npy`` (N + 1,)
  int64: the suffix of entry i is ``suffix_ids[suffix_offsets[i]:suffix_offsets[i + 1]]``;
- ``line_offsets.npy`` (N + 1,) int64: where each line of ``entries.jsonl`` begins;
- ``skipped.jsonl``: the documents that were left out, and why;
- ``corpus.jsonl``: the documents, if they were to be saved;
- ``metadata.json``: how the map was made; written last, so a folder without it is not finished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pytest_llmprobe.data.rows import MAX_LINE, jsonl_rows, reason
from pytest_llmprobe.errors import CasesError

Ids: TypeAlias = NDArray[np.int32]

VERSION = 1
METADATA, ENTRIES, SKIPPED = "metadata.json", "entries.jsonl", "skipped.jsonl"
CORPUS = "corpus.jsonl"


class Document(NamedTuple):
    """A text of a corpus."""

    id: str
    text: str
    label: str | None = None  # such as an article's title
    info: str | None = None  # such as its address


@dataclass(frozen=True, eq=False)
class PrefixEntry:
    """One document's prefix and what truly follows it."""

    document: str  # its id
    start: int  # place of the prefix's first token in the document
    prefix: str  # as text, for reading: a character that the cut divides is U+FFFD
    prefix_ids: Ids  # (P,), without special tokens
    suffix_ids: Ids  # (m,), up to the end of what counts of the document; may be empty
    label: str | None = None  # of the document
    info: str | None = None  # of the document


@dataclass(frozen=True)
class Skipped:
    """A document that has no entry, by its id, and why."""

    document: str
    reason: str


class PrefixMap:
    """A saved prefix map; its arrays stay on disk, and entries are read when they are asked for.

    Its digest are 16 hex digits that tell it from other maps.

    Raises:
        CasesError: A file is damaged.
    """

    def __init__(self, folder: Path, metadata: Mapping[str, Any], digest: str) -> None:
        self.folder, self.metadata, self.digest = folder, metadata, digest
        self.prefix_ids = self._array("prefix_ids", np.int32, 2)
        self.suffix_ids = self._array("suffix_ids", np.int32, 1)
        self.suffix_offsets = self._array("suffix_offsets", np.int64, 1)
        self._line_offsets = self._array("line_offsets", np.int64, 1)
        lines = folder / ENTRIES
        ends = (
            (self.suffix_offsets, len(self.suffix_ids)),
            (self._line_offsets, lines.stat().st_size if lines.is_file() else -1),
        )
        if any(len(starts) != len(self) + 1 or starts[-1] != end for starts, end in ends):
            raise self._damaged("its files do not fit together")

    def _array(self, name: str, dtype: type, dimensions: int) -> NDArray[Any]:
        path = self.folder / f"{name}.npy"
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, EOFError, ValueError) as error:
            raise self._damaged(f"{path.name}: {reason(error)}") from None
        if array.dtype != dtype or array.ndim != dimensions:
            raise self._damaged(f"{path.name} holds {array.ndim}-dimensional {array.dtype}")
        return array

    def __len__(self) -> int:
        return len(self.prefix_ids)

    def __iter__(self) -> Iterator[PrefixEntry]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> PrefixEntry:
        place = range(len(self))[index]
        start, end = self.suffix_offsets[place : place + 2]
        line = self._line(place)
        suffix = self.suffix_ids[max(start, 0) : max(end, 0)]
        ids = {"prefix_ids": self.prefix_ids[place], "suffix_ids": suffix}
        return PrefixEntry(**line, **ids)

    def _line(self, place: int) -> dict[str, Any]:
        """What an entry has besides its token ids."""
        start, end = map(int, self._line_offsets[place : place + 2])
        if not 0 <= start < end <= start + MAX_LINE:
            raise self._damaged(f"entry {place} has no line")
        with (self.folder / ENTRIES).open("rb") as file:
            file.seek(start)
            line = file.read(end - start)
        try:
            fields = json.loads(line)
            found = {name: fields[name] for name in ("document", "start", "prefix")}
            found |= {name: fields.get(name) for name in ("label", "info")}
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            raise self._damaged(f"the line of entry {place}") from None
        kinds = (str, int, str, str | None, str | None)
        if not all(map(isinstance, found.values(), kinds)):
            raise self._damaged(f"the line of entry {place}")
        return found

    def skipped(self) -> Iterator[Skipped]:
        """The documents that have no entry, and why."""
        for _, fields in jsonl_rows(self.folder / SKIPPED):
            yield Skipped(str(fields.get("document")), str(fields.get("reason")))

    def _damaged(self, what: str) -> CasesError:
        return CasesError(
            f"the prefix map {self.folder} is damaged ({what}): make it again with `llmprobe "
            "prefixes`"
        )


def load_prefix_map(folder: Path, tokenizer_hash: str | None) -> PrefixMap:
    """Open a saved prefix map.

    Args:
        folder: The folder that was made for it.
        tokenizer_hash: Of the tokenizer that the ids are to be used with; None to only look at
            the map.

    Raises:
        CasesError: It is no finished prefix map, damaged, or made with another tokenizer.
    """
    path = folder / METADATA
    try:
        content = path.read_bytes()
        metadata = json.loads(content)
        made_with, version = metadata["tokenizer_hash"], metadata["version"]
        model = metadata["model"]
    except FileNotFoundError:
        raise CasesError(
            f"{folder} is no finished prefix map: it has no {METADATA}; give a folder that "
            "`llmprobe prefixes` made"
        ) from None
    except (OSError, ValueError, RecursionError, LookupError, TypeError) as error:
        raise CasesError(f"{path} cannot be read: {reason(error)}") from None
    if version != VERSION:
        raise CasesError(
            f"{folder} is a prefix map of version {version}, and this is version {VERSION}: make "
            "it again with `llmprobe prefixes`"
        )
    if tokenizer_hash is not None and tokenizer_hash != made_with:
        raise CasesError(
            f"the prefix map {folder} holds token ids of the tokenizer of {model!r} (hash "
            f"{made_with}), and this model's tokenizer has the hash {tokenizer_hash}: make a map "
            "for this model with `llmprobe prefixes`"
        )
    return PrefixMap(folder, metadata, hashlib.sha256(content).hexdigest()[:16])
