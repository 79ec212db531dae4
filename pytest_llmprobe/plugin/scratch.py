"""Folders for what the processes of a session tell each other; those of killed ones are removed.

Imported in every pytest run of the environment, so nothing of weight is imported here.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from pytest_llmprobe.errors import StorageError

NAME = re.compile(r"llmprobe-[0-9a-f]{16}")
ALIVE = "alive"
"""A file that every process of the session holds a lock on: it ends with the process."""

NEW_S = 5.0
"""A younger folder may be one whose first process has not locked it yet."""


def new_path() -> Path:
    """A path that nobody can guess; a short one, since a socket's path in it has 100 characters."""
    return Path(tempfile.gettempdir()) / f"llmprobe-{os.urandom(8).hex()}"


def hold(folder: Path) -> int:
    """Make the folder unless it is there, and hold it while this process lives.

    Raises:
        StorageError: It cannot be made.
    """
    import fcntl

    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        held = os.open(folder / ALIVE, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(held, fcntl.LOCK_SH)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written: {error.strerror}; TMPDIR names another place"
        ) from None
    return held


def remove_abandoned(parent: Path) -> None:
    """Remove what killed sessions of this user have left."""
    import fcntl

    for folder in parent.glob("llmprobe-*"):
        with suppress(OSError):  # somebody else's, or gone
            found = folder.lstat()
            if not NAME.fullmatch(folder.name) or found.st_uid != os.getuid():
                continue
            if time.time() - found.st_mtime < NEW_S:
                continue
            held = os.open(folder / ALIVE, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)
