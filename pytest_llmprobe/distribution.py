"""Which worker runs what: work units stay whole, and workers share cores and GPUs."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmprobe.report.environment import usable_cores
from pytest_llmprobe.report.plan import Plan, read_plan, write_plan
from pytest_llmprobe.work_units import unit_numbers, work_units

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScheduling
    from xdist.workermanage import WorkerController

SCRATCH = pytest.StashKey[Path]()
SCRATCH_INPUT = "llmprobe_scratch"


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is an xdist worker."""
    return hasattr(config, "workerinput")


def worker_input(config: pytest.Config) -> Mapping[str, Any]:
    """What the controller sent to this worker; empty in the only process or the controller."""
    return getattr(config, "workerinput", {})


def scratch_folder(config: pytest.Config) -> Path:
    """Where workers leave what the controller must know beside reports: the plan and progress.

    The controller chooses the name, which nobody can guess; the first worker with a probe case
    makes the folder, so that other runs leave nothing behind.
    """
    if SCRATCH not in config.stash:
        name = f"llmprobe-{uuid.uuid4().hex}"
        sent = worker_input(config).get(SCRATCH_INPUT)
        config.stash[SCRATCH] = Path(sent or Path(tempfile.gettempdir()) / name)
    return config.stash[SCRATCH]


def share_plan(config: pytest.Config, plan: Plan) -> None:
    """In a worker, leave the plan for the controller, which collects nothing itself."""
    scratch = scratch_folder(config)
    scratch.mkdir(mode=0o700, exist_ok=True)
    path = scratch / "plan.json"
    if not path.exists():
        write_plan(plan, path)


def shared_plan(config: pytest.Config) -> Plan:
    """In the controller, the plan that the workers left, or an empty one."""
    path = scratch_folder(config) / "plan.json"
    return read_plan(path) if path.exists() else {}


@dataclass(frozen=True)
class Placement:
    """What one process may use.

    Args:
        threads: CPU threads.
        worker: Number of this worker, for choosing a GPU.
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
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    name = os.environ.get("PYTEST_XDIST_WORKER", "")
    number = int(name.removeprefix("gw")) if name.startswith("gw") else None
    return Placement(max(1, usable_cores() // workers), number)


def unit_scheduler(config: pytest.Config, log: Producer) -> LoadScheduling | None:
    """xdist's load scheduling with whole work units, or None if the user chose another kind.

    ``--dist loadgroup`` would not do: on pytest 9.2 it silently spreads groups (pytest-xdist
    issue 1386).
    """
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScheduling

    class UnitScheduling(LoadScheduling):
        """Rounds every chunk up to the end of its last work unit."""

        _units: list[int] | None = None

        def _unit_of(self, index: int) -> int:
            if self._units is None:
                assert self.collection is not None
                plan = shared_plan(self.config).values()
                units = [unit for e in plan for unit in work_units(e.ids)]
                self._units = unit_numbers(self.collection, units)
            return self._units[index]

        def _send_tests(self, node: WorkerController, num: int) -> None:
            pending = self.pending
            if num > 0 and pending:
                while num < len(pending) and self._unit_of(pending[num - 1]) == self._unit_of(
                    pending[num]
                ):
                    num += 1
            super()._send_tests(node, num)

    return UnitScheduling(config, log)
