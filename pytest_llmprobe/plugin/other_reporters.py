"""What other reporters show of a case: JUnit XML as properties, pytest-html as columns."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.plugin.process import PROPERTY
from pytest_llmprobe.report.terminal import printable

if TYPE_CHECKING:
    import pytest

    from pytest_llmprobe.report.record import Record

FIELDS = (
    "experiment",
    "outcome",
    "task",
    "size",
    "expected",
    "received",
    "explanation",
    "error",
    "prompt_tokens",
    "generated_tokens",
    "finish_reason",
)
COLUMNS = ("outcome", "expected", "received")
MAX_CHARACTERS = 1000


def wanted(config: pytest.Config) -> bool:
    """Whether another reporter of this run shows properties."""
    return any(getattr(config.option, name, None) for name in ("xmlpath", "htmlpath"))


def properties(record: Record) -> Iterator[tuple[str, str]]:
    """``llmprobe.*`` properties of a case, what is empty left out; scores as ``score.NAME``."""
    values: dict[str, Any] = {name: getattr(record, name) for name in FIELDS}
    values |= {f"score.{name}": value for name, value in record.scores.items()}
    for name, value in values.items():
        if value is not None:
            yield f"{PROPERTY}.{name}", _bounded(str(value))


def _bounded(text: str) -> str:
    # A lone surrogate could not travel from a worker.
    text = text[: MAX_CHARACTERS + 1].encode(errors="backslashreplace").decode()
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " ..."


def add_columns(config: pytest.Config) -> bool:
    """Add our columns to pytest-html's table; False if its table cannot be found.

    Its own hook asks for headers before anything is collected, when nobody knows yet whether there
    will be a probe case: a suite without any keeps its table.
    """
    for plugin in config.pluginmanager.get_plugins():
        if type(plugin).__module__.startswith("pytest_html."):
            header = getattr(getattr(plugin, "_report", None), "table_header", None)
            if isinstance(header, list):
                header += [f"<th>{column.capitalize()}</th>" for column in COLUMNS]
                return True
    return False


def row_cells(given: Iterable[tuple[str, object]]) -> list[str]:
    """Of our columns for a report with these user properties; a model's words are escaped."""
    known = dict(given)
    return [
        f"<td>{html.escape(printable(str(known.get(f'{PROPERTY}.{column}', ''))))}</td>"
        for column in COLUMNS
    ]
