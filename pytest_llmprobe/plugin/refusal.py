"""What only collection finds out to be impossible: a usage error, before any model loads.

Where tests are collected an exception would be a failed collection (exit code 2, and 1 under
pytest-xdist, where only the workers collect), so it is kept until all is collected.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_llmprobe.plugin.process import Process, process_of

REFUSED = pytest.StashKey[str]()
"""On the config: why this run is none."""


def refuse(config: pytest.Config, why: str) -> None:
    """Let the run end as a usage error when collection ends; the first reason counts."""
    config.stash[REFUSED] = config.stash.get(REFUSED, why)


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
