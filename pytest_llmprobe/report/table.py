"""The cases of a report as one flat table: for pandas, a spreadsheet, or a data lake."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.report.files import write_atomically

Row: TypeAlias = dict[str, str | int | float | bool | None]

SPREAD = ("params", "parameters", "scores")
"""Parts of a record whose entries are columns of their own: ``params.depth``."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula at the beginning of a cell."""


def table(report: Mapping[str, Any]) -> list[Row]:
    """A row for each case of a report, every row with the same columns, in a fixed order.

    A record's own fields are first; ``params`` (a case's metadata), ``parameters`` and ``scores``
    are spread into columns such as ``scores.recall``. What is neither text, number nor truth value
    is JSON. A column that holds texts in one case holds them in all: data frames need one type.
    """
    rows = [_row(test) for test in report["tests"]]
    columns = sorted({name: None for row in rows for name in row}, key=_place)
    mixed = [name for name in columns if not _one_type([row.get(name) for row in rows])]
    for row in rows:
        row.update({name: _text(row[name]) for name in mixed if row.get(name) is not None})
    return [{name: row.get(name) for name in columns} for row in rows]


def write_csv(report: Mapping[str, Any], path: Path) -> None:
    """The table as CSV, UTF-8, with a header.

    A text that a spreadsheet would run as a formula gets an apostrophe before it: answers of models
    are not to be trusted.
    """
    rows = table(report)
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["id"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
    write_atomically(path, out.getvalue())


def write_parquet(report: Mapping[str, Any], path: Path) -> None:
    """The table as Parquet, texts as they are; needs pyarrow (extra ``datasets``).

    Raises:
        ReportError: pyarrow is not installed, or the file cannot be written.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ReportError(
            'Parquet needs pyarrow: pip install "pytest-llmprobe[datasets]", or give --csv OUT'
        ) from None
    try:
        parquet.write_table(pyarrow.Table.from_pylist(table(report)), path)
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error}") from None


def _row(test: Mapping[str, Any]) -> Row:
    row: Row = {}
    for name, value in test.items():
        if name in SPREAD and isinstance(value, Mapping):
            row.update({f"{name}.{key}": _plain(entry) for key, entry in value.items()})
        else:
            row[name] = _plain(value)
    return row


def _plain(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return json.dumps(value, ensure_ascii=False)


def _place(name: str) -> tuple[bool, str]:
    part, dot, _ = name.partition(".")
    return bool(dot), part if dot else ""


def _one_type(values: Sequence[object]) -> bool:
    kinds = {type(value) for value in values if value is not None}
    return len(kinds) < 2 or kinds == {int, float}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _harmless(value: object) -> object:
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value
