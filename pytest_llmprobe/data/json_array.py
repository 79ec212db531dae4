"""Reads the rows of a JSON array one after another: some published ones are very large."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from pytest_llmprobe.errors import CasesError

CHUNK = 2**20
"""Characters that are read at a time."""

MAX_ROW = 64 * 2**20
"""Characters of one row at most."""

SPACE = " \t\n\r"


def is_array(file: Path) -> bool:
    """Whether a JSON file is an array, by its first character.

    Raises:
        OSError: It cannot be read.
    """
    with file.open("rb") as handle:
        begin = handle.read(CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip(SPACE.encode())
    return begin.startswith(b"[")


def array_items(file: Path) -> Iterator[Any]:
    """What an array holds, in order; the file is read as far as it is asked for.

    Raises:
        CasesError: It is no JSON from some row on, or a row is very long.
        OSError: It cannot be read.
    """
    with file.open(encoding="utf-8-sig") as handle:
        text = _Text(file, handle)
        text.take("[")
        if text.next_is("]"):
            text.take("]")
        else:
            yield text.value()
            while text.next_is(","):
                text.take(",")
                yield text.value()
            text.take("]")
        if text.more():
            raise CasesError(f"{file} is no JSON: there is more after its array")


class _Text:
    """What of a file has been read and not been taken."""

    def __init__(self, file: Path, handle: TextIO) -> None:
        self._file, self._handle = file, handle
        self._read, self._at, self._row = "", 0, 0
        self._decoder = json.JSONDecoder()

    def more(self) -> bool:
        """Go on to the next character that is no white space; whether there is one."""
        while True:
            while self._at < len(self._read) and self._read[self._at] in SPACE:
                self._at += 1
            if self._at < len(self._read):
                return True
            if not self._fill():
                return False

    def next_is(self, character: str) -> bool:
        return self.more() and self._read[self._at] == character

    def take(self, character: str) -> None:
        if not self.next_is(character):
            where = f"{self._file} after row {self._row}"
            raise CasesError(f"{where} is no JSON: there is no {character!r}")
        self._at += 1

    def value(self) -> Any:
        """The value that begins here."""
        self._row += 1
        where = f"{self._file} row {self._row}"
        self.more()
        while True:
            try:
                found, end = self._decoder.raw_decode(self._read, self._at)
            except RecursionError:
                raise CasesError(f"{where} is no JSON: it is nested too deeply") from None
            except ValueError as error:
                # Perhaps only its beginning has been read.
                if len(self._read) - self._at > MAX_ROW:
                    raise CasesError(f"{where} is longer than {MAX_ROW} characters") from None
                if not self._fill():
                    raise CasesError(f"{where} is no JSON: {error}") from None
            else:
                # Of a number perhaps only the first digits have been read.
                if self._read[end : end + 1] in tuple(f"{SPACE},]") or not self._fill():
                    self._at = end
                    return found

    def _fill(self) -> bool:
        """Read on, each time as much as is there already: a long row costs twice its length."""
        rest = self._read[self._at :]
        try:
            if not (read := self._handle.read(max(CHUNK, len(rest)))):
                return False
        except UnicodeDecodeError as error:
            where = f"{self._file} after row {self._row}"
            raise CasesError(f"{where} is no JSON: {type(error).__name__}: {error}") from None
        self._read, self._at = rest + read, 0
        return True
