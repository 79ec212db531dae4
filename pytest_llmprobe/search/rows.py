"""The rows of a data set, and the prompts that are made of them."""

from __future__ import annotations

import hashlib
import json
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from pytest_llmprobe.case import Case, Prompt, check_prompt
from pytest_llmprobe.data.rows import jsonl_rows
from pytest_llmprobe.errors import CasesError

SearchRow: TypeAlias = dict[str, Any]
"""One row by column; ``id`` is unique, and rows with an equal ``group`` are not independent."""

Data: TypeAlias = str | Path | Iterable[Mapping[str, Any] | Case]
"""A JSON-lines file, or rows: dictionaries, a data set of the ``datasets`` package, or cases."""

Prompter: TypeAlias = str | Callable[[SearchRow], Prompt]
"""A template such as ``"Question: {question} Answer:"``, or a function of the row."""


def read_rows(data: Data) -> list[SearchRow]:
    """All rows, each with an ``id``: its own, or a hash of what it holds.

    A case becomes a row with the columns ``prompt`` and ``target``, its metadata, and its group.

    Raises:
        CasesError: There is none, one is no row, or two have one id.
    """
    if isinstance(data, str | Path):
        data = [row for _, row in jsonl_rows(Path(data))]
    rows: list[SearchRow] = []
    for number, row in enumerate(data, 1):
        if not isinstance(row, Case | Mapping):
            raise CasesError(f"row {number} is {type(row).__name__}; give dictionaries")
        rows.append(_of_case(row) if isinstance(row, Case) else dict(row))
    if not rows:
        raise CasesError("the data hold no row")
    copies: Counter[str] = Counter()
    for row in rows:
        if "id" in row:
            row["id"] = str(row["id"])
        else:
            text = json.dumps(row, sort_keys=True, default=str)
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
            copies[digest] += 1
            row["id"] = digest if copies[digest] == 1 else f"{digest}-{copies[digest]}"
    (most, times), *_ = Counter(row["id"] for row in rows).most_common(1)
    if times > 1:
        raise CasesError(f"{times} rows have the id {most!r}; ids are unique")
    return rows


def _of_case(case: Case) -> SearchRow:
    row = {**case.metadata, "id": case.id, "prompt": case.prompt, "target": case.target}
    return row | ({"group": case.group} if case.group else {})


def cluster_of(row: SearchRow) -> str:
    """What a row belongs to: its group, or itself."""
    group = row.get("group")
    return f"row {row['id']}" if group in (None, "") else f"group {group}"


def check_columns(rows: Sequence[SearchRow], columns: Iterable[str], what: str) -> None:
    """Raise CasesError unless every row has the columns."""
    for column, row in product(columns, rows):
        if column not in row:
            has = ", ".join(sorted(map(str, row.keys() - {"id"}))[:20]) or "none"
            raise CasesError(f"row {row['id']}: {what} needs the column {column!r}; it has {has}")


def template_columns(template: str) -> list[str]:
    """The columns that a template names.

    Raises:
        CasesError: It cannot be read, or names something else than a column.
    """
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise CasesError(f"the template {template!r} cannot be read: {error}") from None
    for name in names:
        if not name.isidentifier():
            raise CasesError(
                f"the template names {name!r}; give columns as in {{question}}, double the braces "
                "that are text, or give a function of the row"
            )
    return names


def make_prompts(
    rows: Sequence[SearchRow], prompter: Prompter, columns: Sequence[str] = ()
) -> list[Prompt]:
    """The prompt of each row; a function gets to see these columns, or all if there are none.

    Raises:
        CasesError: A column is missing, or a row's prompt cannot be made.
    """
    if isinstance(prompter, str):
        columns = template_columns(prompter)
    check_columns(rows, columns, "the prompt")
    prompts = []
    for row in rows:
        seen = {name: row[name] for name in columns} if columns else row
        try:
            made = prompter.format_map(row) if isinstance(prompter, str) else prompter(seen)
            check_prompt(made)
        except Exception as error:
            raise CasesError(
                f"row {row['id']}: its prompt cannot be made: {type(error).__name__}: {error}"
            ) from error
        prompts.append(made)
    return prompts
