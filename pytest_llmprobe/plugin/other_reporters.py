"""What other reporters show: JUnit XML cases' properties and gates, pytest-html columns."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pytest

from pytest_llmprobe.plugin.process import PROPERTY
from pytest_llmprobe.report.misses_text import first_misses
from pytest_llmprobe.report.terminal import metric_name, printable

if TYPE_CHECKING:
    from pytest_llmprobe.report.record import Record

FIELDS = (
    "experiment",
    "outcome",
    "task",
    "size",
    "expected",
    "received",
    "failure",
    "explanation",
    "error",
    "prompt_tokens",
    "generated_tokens",
    "finish_reason",
)
COLUMNS = ("outcome", "expected", "received")
MAX_CHARACTERS = 1000

GATES = "llmprobe.gate"
"""Class name of the JUnit test cases that stand for checks."""


def wanted(config: pytest.Config) -> bool:
    """Whether another reporter of this run shows properties."""
    return any(getattr(config.option, name, None) for name in ("xmlpath", "htmlpath"))


def properties(record: Record) -> Iterator[tuple[str, str]]:
    """``llmprobe.*`` properties of a case, what is empty left out; scores as ``score.NAME``."""
    values: dict[str, Any] = {name: getattr(record, name) for name in FIELDS}
    values |= {f"score.{name}": value for name, value in record.scores.items()}
    for name, value in values.items():
        if value is not None:
            whole = name == "error"  # it may end in what to do
            text = str(value) if whole else _bounded(str(value))
            # A lone surrogate could not travel from a worker.
            yield f"{PROPERTY}.{name}", text.encode(errors="backslashreplace").decode()


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " ..."


def add_gates(
    session: pytest.Session,
    checks: Sequence[Mapping[str, Any]],
    experiments: Sequence[Mapping[str, Any]],
) -> None:
    """A test case in the JUnit XML for each check: passed, failed, or skipped if not judged.

    Gates are judged when the session has ended and the file is written, so the plugin that wrote it
    hears of them like of any test, and then of the session's end once more. Nobody else does: a
    check is no test, and must not count as one.
    """
    named = session.config.pluginmanager.list_name_plugin()  # a set of them would hash strangers'
    writers: list[Any] = [p for _, p in named if type(p).__module__ == "_pytest.junitxml"]
    misses = {e["name"]: "\n".join(first_misses(e)) for e in experiments}
    for writer in writers if checks else ():
        for check in checks:
            for report in _reports(check, misses.get(check["experiment"], "")):
                writer.pytest_runtest_logreport(report)
        writer.pytest_sessionfinish()


def _reports(check: Mapping[str, Any], misses: str) -> Iterator[pytest.TestReport]:
    """What pytest reports of a test that ended as the check did."""
    name = f"{GATES}::{printable(check['experiment'])}: {printable(metric_name(check))}"
    reason = printable(check["reason"])
    outcome: Literal["passed", "failed", "skipped"] = "passed"
    shown: str | tuple[str, int, str] | None = None
    if check["verdict"] == "FAIL":
        outcome, shown = "failed", f"{reason}\n{misses}".strip()
    elif check["verdict"] != "PASS":
        outcome, shown = "skipped", (GATES, 0, reason)
    place = (GATES, None, name)
    yield pytest.TestReport(name, place, {}, outcome, shown, "call")
    yield pytest.TestReport(name, place, {}, "passed", None, "teardown")


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
