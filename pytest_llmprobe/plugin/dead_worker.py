"""Why a worker has died, as far as the system tells."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

from pytest_llmprobe.errors import StorageError

COUNTERS = Path("/proc/vmstat")

REAPED_S = 2.0
"""A process that has hung up ends at once."""


def memory_kills() -> int:
    """How often Linux has killed a process for want of memory, a cgroup's included."""
    try:
        lines = COUNTERS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def death_of(node: Any, kills_before: int) -> str | StorageError:
    """What a dead worker died of, as the end of a sentence; an error if memory was what it lacked.

    Args:
        node: As xdist hands it to ``pytest_testnodedown``.
        kills_before: `memory_kills` when the session began.
    """
    process = getattr(getattr(node.gateway, "_io", None), "popen", None)
    if process is None:  # a worker elsewhere
        return "nothing is known of its end"
    try:
        code = process.wait(REAPED_S)
    except subprocess.TimeoutExpired:
        return "it hung up and goes on"
    if code == -signal.SIGKILL and memory_kills() > kills_before:
        return StorageError(
            f"worker {node.gateway.id} was killed, for this machine (or the cgroup of this run) "
            "has no memory left: fewer workers (-n) or a smaller --llmprobe-batch-size need less"
        )
    return f"it died of {signal.Signals(-code).name}" if code < 0 else f"it left with code {code}"
