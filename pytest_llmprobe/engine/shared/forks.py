"""Forks of the process with the model, whose batches are computed side by side on a CPU's cores."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pytest_llmprobe.engine.backend import Backend
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.engine.shared.start import SharedSettings
from pytest_llmprobe.models.loading import LoadedModel

LOOK_S = 0.01
"""Between two looks for a slot that is free."""


def batches_at_once(settings: SharedSettings) -> int:
    """Processes that may compute on a CPU at the same time: one for each worker and core.

    Linux alone has forks that libraries outlive.
    """
    if sys.platform != "linux" or settings.threads is None:
        return 1
    return min(settings.workers, settings.threads)


@dataclass(frozen=True)
class Forks:
    """How a fork becomes the process that answers one client.

    Args:
        folder: The session's, where slots are files.
        count: Forks that compute at the same time.
        threads: Of each.
        watch: Ends this process when the one with the given id does; it does not return.
    """

    folder: Path
    count: int
    threads: int
    watch: Callable[[int], None]

    @classmethod
    def of(
        cls,
        loaded: LoadedModel,
        backend: Backend,
        settings: SharedSettings,
        folder: Path,
        watch: Callable[[int], None],
    ) -> Forks | None:
        """None where one process answers all: on an accelerator, or with one core.

        Copies of weights that are made at once are made here, so that all forks have the same ones.
        """
        count, threads = batches_at_once(settings), settings.threads
        if count == 1 or threads is None:
            return None
        if {each.device.type for each in loaded.model.parameters()} != {"cpu"}:
            torch.set_num_threads(threads)
            return None
        if isinstance(backend, FastBackend):
            backend.copy_weights()
        return cls(folder, count, threads // count, watch)

    def begin(self, server: int) -> Slots:
        """Be a fork of ``server``; what is given is held while a batch is computed."""
        threading.Thread(target=self.watch, args=(server,), daemon=True).start()
        torch.set_num_threads(self.threads)
        return Slots(self.folder, self.count)


class Slots(AbstractContextManager[Any]):
    """A block in which one of ``count`` slots is held, by a lock that goes with its process."""

    def __init__(self, folder: Path, count: int) -> None:
        names = [folder / f"slot-{slot}" for slot in range(count)]
        # Open as long as their process lives.
        self._files = [os.open(name, os.O_RDWR | os.O_CREAT, 0o600) for name in names]
        self._held = ExitStack()

    def __enter__(self) -> None:
        while not any(map(self._take, self._files)):  # whichever is free first
            time.sleep(LOOK_S)

    def _take(self, file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._held.callback(fcntl.flock, file, fcntl.LOCK_UN)
        return True

    def __exit__(self, *_: object) -> None:
        self._held.close()
