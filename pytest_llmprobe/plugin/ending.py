"""How a run ends before its last test, and which exit code says so.

Imported in every pytest run of the environment, so nothing of weight is imported here.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from pytest_llmprobe.errors import AccessError, LlmprobeError, StorageError

SERVER_FAILED, MACHINE_FAILED = 6, 7
"""Exit codes beside pytest's own: nothing is said of the model. The server failed; this machine."""

GO_ON = {
    SERVER_FAILED: "what was answered is kept: --llmprobe-resume goes on",
    MACHINE_FAILED: "what was answered is kept: make room, and --llmprobe-resume goes on",
}

ENDED = pytest.StashKey[tuple[int, str]]()
"""On the config: the exit code of a run that something else than a test has ended, and why."""

WORD = "llmprobe_ended"
"""What a worker tells its controller when it goes."""

LOOK_S = 0.25
"""Between two looks at whether the controller is there."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Errors of a disk that every later case would meet alike."""


def end_run(session: pytest.Session, error: BaseException) -> None:
    """End the session with an error that every later case would meet alike; the first counts."""
    config = session.config
    code = code_of(error)
    if code is not None and ENDED not in config.stash:
        config.stash[ENDED] = (code, f"{_words(error)}; {GO_ON[code]}")
        output: dict[str, Any] | None = getattr(config, "workeroutput", None)
        if output is not None:
            output[WORD] = [code, config.stash[ENDED][1]]
    session.shouldfail = f"llmprobe: {_words(error)}"
    controller: Any = config.pluginmanager.get_plugin("dsession")
    if controller is not None:  # xdist's controller has a loop of its own
        controller.shouldstop = session.shouldfail


def code_of(error: BaseException | None) -> int | None:
    """The exit code that an error ends a run with, if it has one of its own."""
    if isinstance(error, AccessError):
        return SERVER_FAILED
    full = isinstance(error, OSError) and error.errno in FULL
    failed = full or isinstance(error, StorageError | MemoryError)
    return MACHINE_FAILED if failed else None


def _words(error: BaseException) -> str:
    return "this machine has no memory left" if isinstance(error, MemoryError) else str(error)


def heard(config: pytest.Config, node: Any) -> None:
    """Take over what a worker that has gone said about the run's end."""
    told = getattr(node, "workeroutput", {}).get(WORD)
    if told is not None and ENDED not in config.stash:
        config.stash[ENDED] = (int(told[0]), str(told[1]))


def unwritten(error: OSError | LlmprobeError) -> StorageError:
    """In one line what cannot be kept, and what to do."""
    if isinstance(error, LlmprobeError):
        return error if isinstance(error, StorageError) else StorageError(str(error))
    where = f"{error.filename} cannot be written: " if error.filename else ""
    return StorageError(f"{where}{error.strerror or error}")


class Signals:
    """Lets SIGTERM end a run as Ctrl-C does, with a report; a second Ctrl-C ends it at once."""

    def __init__(self) -> None:
        self._before: Any = None

    def listen(self) -> None:
        """From now on, unless somebody else listens."""
        alone = threading.current_thread() is threading.main_thread()
        if alone and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            self._before = signal.signal(signal.SIGTERM, _interrupt)

    def interrupted(self) -> None:
        """The run is ending: nothing but a second Ctrl-C keeps it from its report."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, _leave)

    def restore(self) -> None:
        """As it was before."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            if signal.getsignal(signal.SIGINT) is _leave:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            self._before = None


def leave_with_controller(last: Callable[[], None]) -> None:
    """In a worker: end when the controller has ended, who may have been killed, at whatever it is.

    Without this a worker goes on for 5 to 15 seconds, asks a server and writes beside a run that
    goes on.

    Args:
        last: What is done before.
    """
    controller = os.getppid()

    def watch() -> None:
        while os.getppid() == controller:
            time.sleep(LOOK_S)
        last()
        os._exit(pytest.ExitCode.INTERRUPTED)

    threading.Thread(target=watch, name="llmprobe-controller", daemon=True).start()


def has_line(entry: Any) -> bool:
    """Whether a traceback's entry has a line: an interrupt may come where Python knows of none.

    pytest would end in a TypeError of its own.
    """
    return entry._rawentry.tb_lineno is not None


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _leave(number: int, frame: FrameType | None) -> None:
    said = "\nllmprobe: left before the report was written; --llmprobe-resume goes on\n"
    os.write(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2, said.encode())
    os._exit(pytest.ExitCode.INTERRUPTED)
