"""Reads rows and texts from files and from the Hugging Face hub, a little at a time.

Each row comes with the words that say where it is, such as ``a.jsonl line 3``; what cannot be read
is a CasesError that begins with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from pytest_llmprobe.data.json_array import array_items, is_array
from pytest_llmprobe.data.network import hub_is_reachable
from pytest_llmprobe.errors import CasesError

Row: TypeAlias = tuple[str, Mapping[str, Any]]

INSTALL = "pip install 'pytest-llmprobe[datasets]'"

MAX_TEXT = 8 * 2**20
"""Characters of one text that are read at most."""

MAX_LINE = 64 * 2**20
"""Bytes of one line of a JSON-lines file at most."""

MAX_ARRAY = 2**29
"""Bytes of a JSON file at most, unless it is an array of rows or JSON lines."""


def text_files(path: Path) -> list[Path]:
    """A file itself, or the .txt files of a folder in the order of their names."""
    return sorted(path.glob("*.txt")) if path.is_dir() else [path]


def read_text(file: Path) -> str:
    """The first `MAX_TEXT` characters of a UTF-8 file.

    Raises:
        CasesError: There is no such file, or it is not UTF-8.
    """
    try:
        with file.open(encoding="utf-8-sig") as handle:
            return handle.read(MAX_TEXT)
    except (OSError, UnicodeDecodeError) as error:
        raise CasesError(f"{file} cannot be read: {reason(error)}") from None


def jsonl_rows(file: Path) -> Iterator[Row]:
    """The objects of a JSON-lines file; empty lines do not count.

    Raises:
        CasesError: A line is no object, or very long.
    """
    try:
        with file.open("rb") as handle:
            lines = iter(lambda: handle.readline(MAX_LINE + 1), b"")
            for number, line in enumerate(lines, 1):
                where = f"{file} line {number}"
                if line.strip():
                    yield where, _json_object(where, line)
    except OSError as error:
        raise CasesError(f"{file} cannot be read: {reason(error)}") from None


def _json_object(where: str, line: bytes) -> Mapping[str, Any]:
    if len(line) > MAX_LINE:
        raise CasesError(f"{where} is longer than {MAX_LINE} bytes")
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise CasesError(f"{where} is no JSON: {reason(error)}") from None
    if not isinstance(row, dict):
        raise CasesError(f"{where} is a {type(row).__name__} and not a JSON object")
    return row


def json_rows(file: Path) -> Iterator[Row]:
    """The rows of a JSON file, in whichever of the forms that data sets are published in.

    An array of objects, which is read row by row; the same as the only entry of an object; an
    object of columns, each an array or, as pandas writes them by default, an object by row number;
    an object of rows by their number; or JSON lines.

    Raises:
        CasesError: It is none of these, or very long.
    """
    try:
        if is_array(file):
            yield from _objects(_numbered(str(file), array_items(file)))
            return
        with file.open("rb") as handle:
            content = handle.read(MAX_ARRAY + 1)
    except OSError as error:
        raise CasesError(f"{file} cannot be read: {reason(error)}") from None
    if len(content) > MAX_ARRAY:
        raise CasesError(f"{file} is longer than {MAX_ARRAY} bytes: save it as .jsonl")
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if getattr(error, "msg", "") == "Extra data":  # one document after another
            yield from jsonl_rows(file)
            return
        raise CasesError(f"{file} is no JSON: {reason(error)}") from None
    yield from _objects(_numbered(str(file), _rows_in(file, document)))


def _objects(rows: Iterable[Row]) -> Iterator[Row]:
    for where, row in rows:
        if not isinstance(row, dict):
            raise CasesError(f"{where} is a {type(row).__name__} and not a JSON object")
        yield where, row


def _rows_in(file: Path, document: Any) -> Iterable[Any]:
    parts = list(document.values()) if isinstance(document, dict) else []
    if (
        len(parts) == 1
        and isinstance(parts[0], list)
        and all(isinstance(r, dict) for r in parts[0])
    ):
        return parts[0]
    if parts and all(isinstance(part, dict) for part in parts):
        if all(map(str.isdecimal, document)):
            return parts
        numbers = parts[0].keys()
        if all(map(str.isdecimal, numbers)) and all(part.keys() == numbers for part in parts):
            parts = [[part[number] for number in numbers] for part in parts]
    if parts and all(isinstance(part, list) and len(part) == len(parts[0]) for part in parts):
        return [dict(zip(document, row, strict=True)) for row in zip(*parts, strict=True)]
    raise CasesError(
        f"{file} has no rows: it is a {type(document).__name__} and neither an array of objects "
        "nor an object of columns of the same length"
    )


def parquet_rows(file: Path) -> Iterator[Row]:
    """The rows of a parquet file.

    Raises:
        CasesError: It cannot be read, or pyarrow is missing.
    """
    if find_spec("pyarrow") is None:
        raise CasesError(f"{file}: a .parquet file needs the pyarrow package: {INSTALL}")
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            rows = (row for batch in table.iter_batches(64) for row in batch.to_pylist())
            yield from _numbered(str(file), rows)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise CasesError(f"{file} cannot be read: {reason(error)}") from None


def hub_rows(
    hub: str, split: str, config: str | None = None, revision: str | None = None
) -> Iterator[Row]:
    """The rows of a split on the hub, streamed; with HF_HUB_OFFLINE what is in the cache.

    Raises:
        CasesError: It cannot be had.
    """
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    if not offline and not hub_is_reachable():
        raise CasesError(
            f"{hub}: the hub cannot be reached; HF_HUB_OFFLINE=1 takes what is in the cache, and a "
            "local .jsonl file needs no hub"
        )
    import datasets

    try:
        chosen = {"name": config, "revision": revision}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        rows = datasets.load_dataset(hub, split=split, streaming=not offline, **chosen)
        yield from _numbered(hub, rows)
    except Exception as error:  # its own, those of the hub's client and of the network
        ways = "HF_HUB_OFFLINE is set" if offline else "is there a network"
        raise CasesError(
            f"{hub}, split {split!r}: {reason(error)} (is the name right, {ways}, does it need `hf "
            "auth login`?); a local .jsonl file needs no hub"
        ) from None


def _numbered(where: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        yield f"{where} row {number}", row


def reason(error: BaseException) -> str:
    """An error's first words on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first[:300]}"


def field_text(where: str, row: Mapping[str, Any], name: str) -> str | None:
    """A field of a row, as text; None where it is null.

    Raises:
        CasesError: There is no such field; names those that there are.
    """
    if name not in row:
        has = ", ".join(sorted(row)[:20]) or "no field at all"
        raise CasesError(f"{where} has no field {name!r}: it has {has}")
    return None if row[name] is None else str(row[name])[:MAX_TEXT]
