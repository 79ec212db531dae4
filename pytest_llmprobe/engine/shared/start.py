"""The first worker starts the engine's process; all others find it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pytest_llmprobe.engine.shared.client import SharedBackend
from pytest_llmprobe.errors import ModelError, SettingsError
from pytest_llmprobe.models.registry import ModelSpec

SOCKET, SETTINGS, LOG, LOCK = "engine.sock", "engine.json", "engine.log", "engine.lock"

LONGEST_PATH = 100
"""Bytes of a socket's path; the system allows few more."""


@dataclass(frozen=True)
class SharedSettings:
    """What the engine's process must know.

    Args:
        spec: The model.
        batch_size: Of each batch at most, or None.
        drafts: Whether tokens are guessed.
        threads: CPU threads of all its batches together; None leaves their number.
        workers: How many will ask.
    """

    spec: ModelSpec
    batch_size: int | None
    drafts: bool
    threads: int | None = None
    workers: int = 1


def settings_in(folder: Path) -> SharedSettings:
    """What ``join`` has left for the process that it starts."""
    data: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    return SharedSettings(ModelSpec(**data.pop("spec")), **data)


def join(folder: Path, settings: SharedSettings) -> SharedBackend:
    """A connection to the engine's process, which is started if there is none.

    The folder is one that all workers of the run know; it is made if it is not there.

    Raises:
        SettingsError: This system has no local sockets, or the folder's path is too long for one.
        ModelError: The model cannot be loaded.
    """
    path = folder / SOCKET
    if not hasattr(socket, "AF_UNIX"):
        raise SettingsError("--llmprobe-engine shared needs local sockets, which this system lacks")
    if len(str(path).encode()) > LONGEST_PATH:
        raise SettingsError(f"{path} is too long for a socket: set TMPDIR to a shorter folder")
    folder.mkdir(mode=0o700, exist_ok=True)
    with _alone(folder / LOCK):
        connection = _connect(path)
        if connection is None:
            _start(folder, settings)
            connection = _connect(path)
    if connection is None:
        raise ModelError(f"the shared engine does not answer at {path}")
    return SharedBackend(connection)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One worker at a time; the system lets go of a killed one's lock."""
    import fcntl

    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _connect(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    return connection


def _start(folder: Path, settings: SharedSettings) -> None:
    """Start the process and wait until it listens; loading may take minutes."""
    (folder / SOCKET).unlink(missing_ok=True)  # of a process that was killed
    (folder / SETTINGS).write_text(json.dumps(asdict(settings)), encoding="utf-8")
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest_llmprobe.engine.shared", str(folder), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt is the workers' business
        )
    while not (folder / SOCKET).exists():
        if process.poll() is not None:
            raise ModelError(_last_words(folder / LOG))
        time.sleep(0.02)
    # It outlives this function, and whoever started it is to reap it.
    threading.Thread(target=process.wait, name="llmprobe-engine", daemon=True).start()


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "the shared engine ended without a word"
