"""This process's place in the session: the only one, xdist's controller, or one of its workers.

Imported in every pytest run of the environment, so heavier imports wait until they are needed.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pytest_llmprobe.plugin.scratch import hold, new_path, remove_abandoned

PROPERTY = "llmprobe"
"""Name of the user property in which a record rides on a report."""

MISSED = "llmprobe_missed"
"""Attribute of the report of a case that missed."""

RUN = pytest.StashKey[Any]()
"""The Run, from the end of collection on, where there are probe cases or their fixtures."""

HELD = pytest.StashKey[Any]()
"""The model of a run whose caller has it in memory."""

SCRATCH, STARTED, WATCHED = "llmprobe_scratch", "llmprobe_started", "llmprobe_watched"
KEEPS, BEGUN = "llmprobe_keeps", "llmprobe_begun"
"""What the controller sends to a worker."""

LOST = "lost-"
"""A file for each worker that has died."""


class Process:
    """What tells the processes of a session apart, and where they leave each other word.

    Args:
        config: The process's own.

    Attributes:
        is_worker: Whether this is an xdist worker.
        name: A worker's, such as ``gw0``.
        started: When the session began, in seconds since the epoch: a worker's is its controller's.
        keeps: Whether a worker runs all that it is given: no other takes it away.
        scratch: The folder where workers leave what the controller must know beside reports. The
            controller chooses its name, which nobody can guess; the first process that leaves
            something makes it, so that a run without probe cases leaves nothing behind.
    """

    def __init__(self, config: pytest.Config) -> None:
        sent = getattr(config, "workerinput", {})
        self.is_worker = hasattr(config, "workerinput")
        self.name = str(sent.get("workerid", ""))
        self.started = float(sent.get(STARTED) or time.time())
        self._begun = float(sent.get(BEGUN) or time.monotonic())
        self.scratch = Path(sent.get(SCRATCH) or new_path())
        self._held: int | None = None
        self._watched = sent.get(WATCHED)
        self.keeps = bool(sent.get(KEEPS))
        self._config = config

    @property
    def replaces(self) -> bool:
        """Whether this worker takes the place of one that has died."""
        number = self.name.removeprefix("gw")
        return self.is_worker and number.isdecimal() and int(number) >= workers()

    @property
    def seconds(self) -> float:
        """How long the session has lasted, by a clock that nobody sets."""
        return time.monotonic() - self._begun

    @property
    def plan_file(self) -> Path:
        """Where a worker leaves what it has collected: the controller collects nothing."""
        return self.scratch / "plan.json"

    @property
    def watched(self) -> bool:
        """Whether a person watches: output is a terminal, not quiet, not shared with prints."""
        if self.is_worker:
            return bool(self._watched)
        config = self._config
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        return (
            reporter is not None
            and bool(reporter.isatty())
            and config.get_verbosity() >= 0
            and config.getoption("capture") != "no"
        )

    def for_worker(self) -> dict[str, Any]:
        """What the controller sends to a worker."""
        keeps = self._config.getoption("dist", "no") == "load"
        sent = {SCRATCH: str(self.scratch), STARTED: self.started, WATCHED: self.watched}
        return sent | {KEEPS: keeps, BEGUN: self._begun}

    @property
    def workers(self) -> int:
        """Processes of this run that ask the model; of a run within another one its own."""
        if self.is_worker:
            return workers()
        return int(getattr(self._config.option, "numprocesses", None) or 1)

    def make_scratch(self) -> Path:
        """The scratch folder, which is there from now on.

        Raises:
            StorageError: It cannot be made.
        """
        if self._held is None:
            self._held = hold(self.scratch)
            remove_abandoned(self.scratch.parent)
        return self.scratch

    def leave_scratch(self) -> None:
        """Remove the scratch folder: the session is over."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def lost(self, worker: str) -> None:
        """A worker has died: others get its tests, and look for what it was answered."""
        with suppress(OSError):  # no scratch folder yet, or no room: then more is asked again
            (self.scratch / f"{LOST}{worker}").touch()

    @property
    def lost_workers(self) -> int:
        """How many have died."""
        try:
            return sum(path.name.startswith(LOST) for path in self.scratch.iterdir())
        except FileNotFoundError:
            return 0

    def is_first(self, what: str) -> bool:
        """Whether no other process of this session has asked for ``what`` before."""
        claim = self.make_scratch() / f"{what}.claim"
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True


PROCESS = pytest.StashKey[Process]()


def process_of(config: pytest.Config) -> Process:
    """The process that a config belongs to."""
    if PROCESS not in config.stash:
        config.stash[PROCESS] = Process(config)
    return config.stash[PROCESS]


def workers() -> int:
    """Processes that share this machine's cores and requests: xdist's workers.

    From the environment, so that a run that a worker of another run starts has that worker's share.
    """
    return int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def threads() -> int:
    """CPU threads of this process: its worker's share of the cores, or what the user wants."""
    from pytest_llmprobe.report.cores import cpu_threads

    return cpu_threads(workers())


def device(asked: str) -> str:
    """The device for a model: with several GPUs and no wish, each worker takes its own."""
    import torch

    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if asked != "auto" or not worker.startswith("gw") or not torch.cuda.is_available():
        return asked
    # An index into the GPUs that CUDA_VISIBLE_DEVICES leaves visible.
    return f"cuda:{int(worker.removeprefix('gw')) % torch.cuda.device_count()}"
