"""How far repeated runs of one configuration differ by chance: runs of their own, one by one."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.plugin.command_line import REPEAT
from pytest_llmprobe.plugin.run import Run
from pytest_llmprobe.report.baseline import Baseline
from pytest_llmprobe.report.run_file import read_run

if TYPE_CHECKING:
    import pytest

# A repeat measures and does nothing else (see REPEAT); an option given again wins.
AGAIN = ("--junit-xml=",)
NOT_INHERITED = ("GITHUB_STEP_SUMMARY",)


def repeats(config: pytest.Config, run: Run) -> list[Baseline]:
    """Repeat the session's run in processes of their own.

    Args:
        config: The finished session's.
        run: What it knows: how often, and where the reports of the repeats go.

    Raises:
        ReportError: A repeat did not end as a complete run.
    """
    _free_memory(run)
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    runs, times, folder = [], run.options.calibrate, run.folder.files.report.parent
    for number in range(1, times + 1):
        if terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(f"llmprobe: repeat {number} of {times}")
        runs.append(_repeat(config, number, folder / f"repeat-{number}" / "report.json"))
    return runs


def _repeat(config: pytest.Config, number: int, path: Path) -> Baseline:
    path.unlink(missing_ok=True)
    given = (str(a) for a in config.invocation_params.args if a != "--llmprobe-self-check")
    arguments = [*given, *AGAIN, f"--llmprobe-json={path}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=config.invocation_params.dir,
        env={name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        | {REPEAT: str(number)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    run = read_run(path) if path.exists() else None
    if run is None or run.status != "complete":
        last = done.stdout.decode(errors="replace").strip().rpartition("\n")[2]
        raise ReportError(f"repeat {number} ended with exit code {done.returncode}: {last}")
    return run


def _free_memory(run: Run) -> None:
    """A model that this process loaded for its tests would stand beside the repeat's."""
    run.predictors = None
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
