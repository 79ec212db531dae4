"""Which worker runs what: work units stay whole, and workers share cores and GPUs.

Imported in every pytest run of the environment, so heavier imports wait until they are needed.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from pytest_llmprobe.report.plan import Plan

PROPERTY = "llmprobe"
"""Name of the user property in which a record rides on a report."""

MISSED = "llmprobe_missed"
"""Attribute of the report of a case that missed."""

PLAN = pytest.StashKey["Plan"]()
SCRATCH = pytest.StashKey[Path]()
SCRATCH_INPUT = "llmprobe_scratch"
WATCHED_INPUT = "llmprobe_watched"
STARTED = pytest.StashKey[float]()
STARTED_INPUT = "llmprobe_started"


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is an xdist worker."""
    return hasattr(config, "workerinput")


def worker_input(config: pytest.Config) -> Mapping[str, Any]:
    """What the controller sent to this worker; empty in the only process or the controller."""
    return getattr(config, "workerinput", {})


def prepare_worker(config: pytest.Config, workerinput: MutableMapping[str, Any]) -> bool:
    """In the controller, tell a worker where to leave its plan and whether anybody watches."""
    workerinput[SCRATCH_INPUT] = str(scratch_folder(config))
    workerinput[STARTED_INPUT] = started_at(config)
    workerinput[WATCHED_INPUT] = watched(config)
    return watched(config)


def watched(config: pytest.Config) -> bool:
    """Whether a person watches: output is a terminal, not quiet, and not shared with prints."""
    if is_worker(config):
        return bool(worker_input(config).get(WATCHED_INPUT))
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return (
        reporter is not None
        and bool(reporter.isatty())
        and config.get_verbosity() >= 0
        and config.getoption("capture") != "no"
    )


def started_at(config: pytest.Config) -> float:
    """When the session began, in seconds since the epoch: a worker's is its controller's."""
    sent = worker_input(config).get(STARTED_INPUT)
    return float(sent) if sent else config.stash.setdefault(STARTED, time.time())


def scratch_folder(config: pytest.Config) -> Path:
    """Where workers leave what the controller must know beside reports: the plan and progress.

    The controller chooses the name, which nobody can guess; the first worker with a probe case
    makes the folder, so that other runs leave nothing behind.
    """
    if SCRATCH not in config.stash:
        name = f"llmprobe-{secrets.token_hex(8)}"  # short: a socket's path has 100 characters
        sent = worker_input(config).get(SCRATCH_INPUT)
        config.stash[SCRATCH] = Path(sent or Path(tempfile.gettempdir()) / name)
    return config.stash[SCRATCH]


def is_first(config: pytest.Config, what: str) -> bool:
    """Whether no other process of this session has asked for ``what`` before."""
    scratch = scratch_folder(config)
    scratch.mkdir(mode=0o700, exist_ok=True)
    try:
        os.close(os.open(scratch / f"{what}.claim", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def share_plan(config: pytest.Config, plan: Plan) -> None:
    """Keep the plan; in a worker, leave it for the controller too, which collects nothing."""
    config.stash[PLAN] = plan
    if plan and is_worker(config):
        from pytest_llmprobe.report.plan import write_plan

        scratch = scratch_folder(config)
        scratch.mkdir(mode=0o700, exist_ok=True)
        if not (path := scratch / "plan.json").exists():
            write_plan(plan, path)


def plan_of(config: pytest.Config) -> Plan:
    """What was to run: collected in this process, or left by the workers; else empty."""
    if PLAN not in config.stash:
        path = scratch_folder(config) / "plan.json"
        if not path.exists():
            return {}
        from pytest_llmprobe.report.plan import read_plan

        config.stash[PLAN] = read_plan(path)
    return config.stash[PLAN]


class Placement(NamedTuple):
    """What one process may use.

    Args:
        threads: CPU threads.
        worker: Number of this worker, for choosing a GPU; None in the only process.
    """

    threads: int
    worker: int | None

    def device(self, asked: str) -> str:
        """The device for a model: with several GPUs and no wish, each worker takes its own."""
        import torch

        if asked != "auto" or self.worker is None or not torch.cuda.is_available():
            return asked
        # An index into the GPUs that CUDA_VISIBLE_DEVICES leaves visible.
        return f"cuda:{self.worker % torch.cuda.device_count()}"


def placement() -> Placement:
    """This process's share: the cores divided by the workers, and a worker number."""
    from pytest_llmprobe.report.environment import usable_cores

    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    name = os.environ.get("PYTEST_XDIST_WORKER", "")
    number = int(name.removeprefix("gw")) if name.startswith("gw") else None
    return Placement(max(1, usable_cores() // workers), number)


def unit_scheduler(config: pytest.Config, log: Any) -> object | None:
    """A load scheduler that keeps work units whole, or None if the user chose another kind.

    ``--dist loadgroup`` would not do: on pytest 9.2 it silently spreads groups (pytest-xdist
    issue 1386).
    """
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScheduling

    from pytest_llmprobe.plugin.units import unit_numbers, work_units

    class UnitScheduling(LoadScheduling):  # type: ignore[misc] # xdist has no type information
        """Rounds every chunk up to the end of its last work unit."""

        _units: list[int] | None = None

        def _unit_of(self, index: int) -> int:
            if self._units is None:
                plan = plan_of(self.config).values()
                size = _unit_size(self.config) if plan else 0
                units = [unit for experiment in plan for unit in work_units(experiment.ids, size)]
                self._units = unit_numbers(self.collection, units)
            return self._units[index]

        def _send_tests(self, node: object, num: int) -> None:
            while 0 < num < len(self.pending) and (
                self._unit_of(self.pending[num - 1]) == self._unit_of(self.pending[num])
            ):
                num += 1
            super()._send_tests(node, num)

    return UnitScheduling(config, log)


def _unit_size(config: pytest.Config) -> int:
    from pytest_llmprobe.plugin.options import options_of

    return options_of(config).unit_size
