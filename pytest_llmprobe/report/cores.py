"""How many processors this process may use: by affinity, by a container's quota, by the user."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

SYSTEM = Path("/")
"""Where /proc and /sys are."""

CONTROLLERS = ("sys/fs/cgroup", "sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct")
"""Where control groups are mounted: version 2, and version 1 by its usual names."""


def usable_cores() -> int:
    """Cores that this process may keep busy: fewer than the machine's under taskset or a quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, int(cpu_quota(SYSTEM) or cores)))


def cpu_threads(processes: int = 1) -> int:
    """Threads of one of so many processes: its share of the cores, or OMP_NUM_THREADS if fewer."""
    share = max(1, usable_cores() // processes)
    asked = re.match(r"\s*(\d+)", os.environ.get("OMP_NUM_THREADS", ""))
    return min(share, int(asked[1])) if asked and int(asked[1]) else share


def cpu_quota(system: Path) -> float | None:
    """Cores' worth of time that Linux gives the control groups of this process, None if all."""
    return min(_quotas(system), default=None)


def _quotas(system: Path) -> Iterator[float]:
    for group in _groups(system):
        for mount in CONTROLLERS:
            # Within a container the group's own name may lead nowhere; then its root is mounted.
            for part in (group, *Path(group).parents):
                folder = system / mount / str(part).lstrip("/")
                with contextlib.suppress(OSError, ValueError):
                    quota, period = (folder / "cpu.max").read_text().split()
                    yield int(quota) / int(period)
                with contextlib.suppress(OSError, ValueError):
                    quota = (folder / "cpu.cfs_quota_us").read_text()
                    if int(quota) > 0:
                        yield int(quota) / int((folder / "cpu.cfs_period_us").read_text())


def _groups(system: Path) -> set[str]:
    """Names of the groups that may limit processors: ``0::/a`` and ``4:cpu,cpuacct:/b``."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return set()
    fields = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    return {path for number, names, path in fields if number == "0" or "cpu" in names.split(",")}
