"""Data that the user names for an experiment: files, folders and Hugging Face data sets.

``--llmprobe-dataset NAME=SOURCE``, where SOURCE is one of

- ``texts/``: a folder; each ``.txt`` file in it is a text, in the order of their names;
- ``book.txt``: one text;
- ``texts.jsonl``, ``texts.parquet`` or ``texts.json`` (an array, columns, or lines): one text a
  row, in the field ``text``, or in the field ``body`` with ``texts.jsonl#body``;
- ``org/name[:[config:]split][@revision][#field]``: a data set on the Hugging Face hub, split
  ``train`` by default, streamed; with HF_HUB_OFFLINE, as the ``datasets`` package has it in its
  cache;
- ``schema.json``: one JSON document, for an experiment that asks for one.

A name that exists as a path is that path. Files are read as far as they are needed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytest_llmprobe.data.rows import (
    INSTALL,
    MAX_TEXT,
    Row,
    field_text,
    hub_rows,
    json_rows,
    jsonl_rows,
    parquet_rows,
    read_text,
    reason,
    text_files,
)
from pytest_llmprobe.errors import CasesError, SettingsError

OPTION = "--llmprobe-dataset"
EXTENSIONS = (".txt", ".jsonl", ".parquet", ".json")

_FORMS = (
    "a folder of .txt files, a .txt, .jsonl, .json or .parquet file, or a Hugging Face data set as "
    "org/name[:[config:]split][@revision][#field]; a schema is a .json file, too"
)
REFERENCE = "reference"
"""Field of a row that holds what an answer about its text is compared with."""

MAX_NAME = 500
"""Characters of a document's id at most."""

_NAME = re.compile(r"[A-Za-z]\w*")
_HUB = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?::(?:([\w.-]+):)?([\w.-]+))?(?:@([\w./-]+))?")


@dataclass(frozen=True)
class Sample:
    """The texts that an experiment uses."""

    texts: tuple[str, ...]  # in their order; at least one
    references: tuple[str | None, ...]  # what each row has in the field ``reference``, if a text
    # For the report: the source as it was given, how many texts, and the first 16 hex digits of a
    # SHA-256 of what was used of them.
    origin: str


@dataclass(frozen=True)
class Dataset:
    """One source; see the module. Nothing is read before it is asked for."""

    name: str  # what the experiment calls it
    given: str  # the source as the user gave it
    path: Path | None = None  # the file or folder, or None for a data set on the hub
    hub: str = ""  # its id there
    split: str = "train"  # its split there
    text_field: str = "text"  # the field that holds the text
    config: str | None = None  # its configuration there, such as MMLU's subject
    revision: str | None = None
    _samples: dict[tuple[int | None, ...], Sample] = field(
        default_factory=dict, compare=False, repr=False
    )

    def __str__(self) -> str:
        return f"{OPTION} {self.name}={self.given}"

    def sample(
        self, *, texts: int | None = None, characters: int | None = None, longest: int = MAX_TEXT
    ) -> Sample:
        """The first texts, fewer than asked for if there are no more; read once.

        Args:
            texts: How many.
            characters: As many as hold so many characters.
            longest: Each is cut after so many characters.

        Raises:
            CasesError: The source cannot be read, or holds no text.
        """
        asked = (texts, characters, longest)
        if asked not in self._samples:
            kept: list[str] = []
            references: list[str | None] = []
            total, empty, digest = 0, 0, hashlib.sha256()
            for _, _, text, row in self._documents():
                if not text.strip():
                    empty += 1
                    continue
                kept.append(text[:longest])
                references.append(reference := _reference(row))
                total += len(kept[-1])
                for used in (kept[-1], reference):
                    if used is not None:
                        digest.update(hashlib.sha256(used.encode()).digest())
                if len(kept) == texts or (characters is not None and total >= characters):
                    break
            without = f"{empty} without text left out"
            if not kept:
                raise CasesError(f"{self} holds no text" + (f": {without}" if empty else ""))
            count = f"{len(kept)} text{'s' if len(kept) > 1 else ''}"
            count += f", {without}" if empty else ""
            origin = f"{self.given} ({count}, sha256 {digest.hexdigest()[:16]})"
            self._samples[asked] = Sample(tuple(kept), tuple(references), origin)
        return self._samples[asked]

    def texts(self) -> Iterator[str]:
        """Every text, in order; those of white space only, and nulls, are left out.

        Raises:
            CasesError: Something cannot be read; names the file and the line or row.
        """
        return (text for _, text in self.documents())

    def documents(
        self, left_out: Callable[[str], object] | None = None
    ) -> Iterator[tuple[str, str]]:
        """As `texts`, each after its id: its file's name, its row's field ``id`` or ``line 3``.

        Args:
            left_out: Told the id of each that has no text.

        Raises:
            CasesError: As for `texts`.
        """
        return ((name, text) for name, text, _ in self.documents_with((), left_out))

    def documents_with(
        self, fields: Sequence[str], left_out: Callable[[str], object] | None = None
    ) -> Iterator[tuple[str, str, list[str | None]]]:
        """As `documents`, each with other fields of its row, which must be there, as texts."""
        for where, name, text, row in self._documents():
            if text.strip():
                yield name, text, [field_text(where, row, field) for field in fields]
            elif left_out is not None:
                left_out(name)

    def _documents(self) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
        """Where each text is, its id, the text, and its row; those without text, too."""
        with self._named():
            for where, name, text, row in self._texts():
                try:
                    f"{text}{_reference(row)}".encode()
                except UnicodeEncodeError:
                    raise CasesError(f"{where} holds half of a surrogate pair") from None
                yield where, name, text, row

    def _texts(self) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
        if self.path is not None and (self.path.is_dir() or self.path.suffix == ".txt"):
            for file in text_files(self.path):
                yield str(file), file.name, read_text(file), {}
            return
        for where, row in self._rows():
            own = row.get("id")
            name = str(own) if isinstance(own, str | int) else " ".join(where.split(" ")[-2:])
            text = row.get(self.text_field, False)
            if text is None:
                text = ""
            if not isinstance(text, str):
                has = ", ".join(sorted(key for key in row if isinstance(row[key], str))[:20])
                raise CasesError(
                    f"{where} has no text in the field {self.text_field!r}; choose another with "
                    f"SOURCE#FIELD: it has {has or 'no text at all'}"
                )
            yield where, name[:MAX_NAME], text[:MAX_TEXT], row

    def rows(self) -> Iterator[Row]:
        """Every row, after the words that say where it is, such as ``a.jsonl line 3``.

        Raises:
            CasesError: The source has no rows, or one cannot be read.
        """
        with self._named():
            yield from self._rows()

    def _rows(self) -> Iterator[Row]:
        if self.path is None:
            return hub_rows(self.hub, self.split, self.config, self.revision)
        if self.path.suffix == ".jsonl":
            return jsonl_rows(self.path)
        if self.path.suffix == ".json":
            return json_rows(self.path)
        if self.path.suffix == ".parquet":
            return parquet_rows(self.path)
        kind = "folder" if self.path.is_dir() else f"{self.path.suffix} file"
        raise CasesError(
            f"a {kind} has no rows; give a .jsonl, .json or .parquet file or a Hugging Face data "
            "set"
        )

    def document(self) -> Any:
        """What a .json file holds.

        Raises:
            CasesError: It is another kind of source, or no JSON.
        """
        with self._named():
            if self.path is None or self.path.suffix != ".json":
                raise CasesError("give a .json file")
            try:
                return json.loads(read_text(self.path))
            except (ValueError, RecursionError) as error:
                raise CasesError(f"{self.path} is no JSON: {reason(error)}") from None

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except CasesError as error:
            raise CasesError(f"{self}: {error}") from None


def _reference(row: Mapping[str, Any]) -> str | None:
    given = row.get(REFERENCE)
    return given[:MAX_TEXT] if isinstance(given, str) and given.strip() else None


def read_datasets(options: Iterable[str], start: Path) -> Mapping[str, Dataset]:
    """The data that the command line names, looked for but not read.

    Args:
        options: ``NAME=SOURCE`` each.
        start: The folder that relative paths start from.

    Raises:
        SettingsError: One cannot be used; names it and says what to do.
    """
    found: dict[str, Dataset] = {}
    for option in options:
        name, _, given = option.partition("=")
        if not given or not _NAME.fullmatch(name):
            raise SettingsError(f"{OPTION} {option}: give NAME=SOURCE, as in haystack=texts/")
        if name in found:
            raise SettingsError(f"{OPTION}: {name} is given twice: {found[name].given}, {given}")
        try:
            found[name] = _dataset(name, given, start)
        except SettingsError as error:
            raise SettingsError(f"{OPTION} {option}: {error}") from None
    return found


def _dataset(name: str, given: str, start: Path) -> Dataset:
    base, mark, text_field = given, "", ""
    path = start / Path(base).expanduser()
    if not path.exists():
        base, mark, text_field = given.partition("#")
        path = start / Path(base).expanduser()
    if mark and not text_field:
        raise SettingsError("there is no field after the '#'")
    text_field = text_field or "text"
    hub = _HUB.fullmatch(base)
    if path.exists():
        _check(path, bool(mark))
        return Dataset(name, given, path, text_field=text_field)
    if hub is None or path.suffix in EXTENSIONS:
        raise SettingsError(f"there is no file or folder {path}; give {_FORMS}")
    if find_spec("datasets") is None:
        raise SettingsError(
            f"there is no file or folder {path}; if {hub[1]} is a Hugging Face data set, the "
            f"datasets package must be installed: {INSTALL}"
        )
    return Dataset(name, given, None, hub[1], hub[3] or "train", text_field, hub[2], hub[4])


def _check(path: Path, has_field: bool) -> None:
    if path.is_dir():
        if not text_files(path):
            raise SettingsError(f"the folder {path} holds no .txt file; give {_FORMS}")
    elif not path.is_file() or path.suffix not in EXTENSIONS:
        raise SettingsError(f"{path} has the extension {path.suffix!r}; give {_FORMS}")
    if has_field and path.suffix not in (".jsonl", ".json", ".parquet"):
        raise SettingsError(f"{path} has no fields; leave the '#' and what follows out")
    try:
        with text_files(path)[0].open("rb"):
            pass
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {reason(error)}") from None
