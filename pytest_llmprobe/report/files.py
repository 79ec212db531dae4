"""The files of a run: where they are, and how they are written so that nothing measured is lost."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from pytest_llmprobe.data.safe_writing import new_folder, why_unwritable
from pytest_llmprobe.data.safe_writing import write_atomically as write_atomically
from pytest_llmprobe.errors import ReportError, StorageError

RECORDS = "records.jsonl"
TAKEN = (RECORDS, "completions.jsonl")
"""Names of files that a run keeps beside its report."""


@dataclass(frozen=True)
class RunFiles:
    """A run's report and, beside it, the records that grow while the run goes."""

    report: Path

    @property
    def records(self) -> Path:
        """One JSON line for the header, then one for each record."""
        return self.report.with_name(RECORDS)


def open_run(storage: Path, model: str, report: Path | None, now: datetime) -> RunFiles:
    """Where a run writes: the given report path, or a folder of its own that is made here.

    Args:
        storage: ``.llmprobe`` unless the user says otherwise.
        model: The model's name, for the folder's name.
        report: Path of the report that the user gave, or None.
        now: Start of the run, with a time zone.
    """
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        return RunFiles(report)
    stamp = now.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    name = f"{stamp}-{re.sub(r'[^A-Za-z0-9._-]+', '-', model).strip('-.')[:100] or 'model'}"
    return RunFiles(new_folder(storage / "runs", name) / "report.json")


def check_writable(path: Path) -> None:
    """Find out before anything is measured whether a file can be written there.

    Raises:
        ReportError: The path is a folder, or its nearest existing folder refuses.
    """
    if path.name in TAKEN:
        raise ReportError(f"the report path {path} is where other data go; give another name")
    if (why := why_unwritable(path)) is not None:
        raise ReportError(f"the report path {path} cannot be written: {why}")


def check_all_writable(*paths: Path | None) -> None:
    """As `check_writable` for several, of which no two may be the same file.

    Raises:
        ReportError: One cannot be written, or would be written twice.
    """
    known: set[Path] = set()
    for path in filter(None, paths):
        check_writable(path)
        if path.resolve() in known:
            raise ReportError(f"the report path {path} is given twice; give each form a file")
        known.add(path.resolve())


def to_json(data: object, indent: int | None = None) -> str:
    """JSON with sorted keys, ASCII only (a lone surrogate stays writable), and no NaN."""
    return json.dumps(data, indent=indent, sort_keys=True, allow_nan=False)


def report_text(report: Mapping[str, Any]) -> Iterator[str]:
    """A report as JSON, in pieces: sorted keys, a line for each test."""
    for number, key in enumerate(sorted(report)):
        yield f"{',' if number else '{'}\n {to_json(key)}: "
        if key == "tests":
            for test_number, test in enumerate(report[key]):
                yield f"{',' if test_number else '['}\n  {to_json(test)}"
            yield "\n ]" if report[key] else "[]"
        else:
            yield to_json(report[key], indent=1).replace("\n", "\n ")
    yield "\n}\n"


class RecordLog:
    """Appends JSON lines, each on disk before the next test's result arrives.

    As an iterable it gives what was written last of each test, sorted by id: read from the file, so
    that a run need not hold its records.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        path.unlink(missing_ok=True)  # another run that still writes there keeps its own file
        self._path = path
        self._file: FileIO = path.open("w+b", buffering=0)  # nothing is left to be written later
        self._places: dict[str, int] = {}
        self.append({"header": dict(header)})

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line and hand it to the operating system.

        Raises:
            StorageError: It cannot be written; those before are whole.
        """
        place, data = self._file.seek(0, os.SEEK_END), f"{to_json(line)}\n".encode()
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            self._file.truncate(place)
            raise StorageError(f"{self._path} cannot be written: {error.strerror}") from None
        if "id" in line:
            self._places[line["id"]] = place

    def read(self, ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The records of those of the tests that have one, sorted by id."""
        with os.fdopen(os.dup(self._file.fileno()), "rb") as file:
            for place in [self._places[name] for name in sorted(ids) if name in self._places]:
                file.seek(place)
                yield json.loads(file.readline())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.read(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> RecordLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
