"""The machine and the software of a run."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pytest_llmprobe.report.cores import usable_cores

PACKAGES = (
    "accelerate",
    "anthropic",
    "datasets",
    "numpy",
    "openai",
    "pytest",
    "pytest-llmprobe",
    "pytest-xdist",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)


def environment(accelerators: list[str]) -> dict[str, Any]:
    """Python, package versions, platform, processor and accelerators."""
    return {
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "platform": platform.platform(),
        "cpu": {"name": _cpu_name(), "cores": usable_cores()},
        "accelerators": accelerators,
    }


def commit(folder: Path) -> dict[str, Any] | None:
    """The git commit of a folder and whether files differ from it, or None outside of git."""
    if (head := _git(folder, "rev-parse", "HEAD")) is None:
        return None
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"id": head, "dirty": bool(status)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
