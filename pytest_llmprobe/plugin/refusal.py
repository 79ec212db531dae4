"""What only collection finds out to be impossible: a usage error, before any model loads.

Where tests are collected an exception would be a failed collection (exit code 2, and 1 under
pytest-xdist, where only the workers collect), so it is kept until all is collected.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from pytest_llmprobe.plugin.process import Process, process_of

REFUSED = pytest.StashKey[str]()
"""On the config: why this run is none."""


def refuse(config: pytest.Config, why: str) -> None:
    """Let the run end as a usage error when collection ends; the first reason counts."""
    config.stash[REFUSED] = config.stash.get(REFUSED, why)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A case that a module makes and that is none ends the run, as one of a function does."""
    report = yield
    call = getattr(report, "call", None)
    if call is None or call.excinfo is None:
        return report
    from pytest_llmprobe.errors import CasesError, SettingsError

    error = call.excinfo.value
    if not isinstance(error, CasesError | SettingsError):
        return report
    refuse(collector.config, f"llmprobe: {collector.nodeid}: {error}")
    return pytest.CollectReport(collector.nodeid, "passed", None, [])


def concerns_us(session: pytest.Session) -> bool:
    """Whether a test of ours was collected, or could not be."""
    return REFUSED in session.config.stash or any(
        item.get_closest_marker("probe") is not None for item in session.items
    )


def end_if_refused(session: pytest.Session) -> bool:
    """Whether the run is none; in a worker its tests are taken away and the controller is told.

    Raises:
        pytest.UsageError: It is none, and this is the only process.
    """
    why, process = session.config.stash.get(REFUSED, None), process_of(session.config)
    if why is None:
        return False
    if not process.is_worker:
        raise pytest.UsageError(why)
    session.items.clear()
    process.make_scratch()
    _word(process).write_text(why, encoding="utf-8")
    return True


def refused_by_workers(config: pytest.Config) -> str | None:
    """What the workers have left, in xdist's controller."""
    word = _word(process_of(config))
    return word.read_text(encoding="utf-8") if word.exists() else None


def _word(process: Process) -> Path:
    return process.scratch / "refused"
