"""How files are written so that a run that is killed loses nothing that it has measured."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any, BinaryIO

from pytest_llmprobe.data.rows import reason
from pytest_llmprobe.errors import CasesError, SettingsError


def new_folder(parent: Path, name: str) -> Path:
    """Make a folder ``name``, or ``name-2`` and so on where another run was as fast."""
    for number in count(1):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError("unreachable: the loop has no end")


def why_unwritable(path: Path, *, folder: bool = False) -> str | None:
    """Why a file (or folder) cannot be made at a path; None if it can.

    Tried and not looked up: permissions say nothing to root, and /proc, read-only mounts and names
    that are too long refuse everybody. Nothing is left behind, and what is there stays.
    """
    there = path
    try:
        if path.is_dir() and not folder:
            return "it is a folder; give a file name"
        if folder and path.exists() and not path.is_dir():
            return "it is a file; name a folder"
        if path.exists() and not path.is_dir() and not path.is_file():
            return "it is no file"  # a device, which a new file would take the place of
        there, missing = (path, [path / "x"]) if path.is_dir() else (path.parent, [path])
        while not there.exists() and there != there.parent:
            there, missing = there.parent, [*missing, there]
        if not there.is_dir():
            return f"{there} is no folder"
        if path.is_file() and not os.access(path, os.W_OK):
            return f"no permission for {path}"
        for name in [one.name for one in missing]:
            Path(tempfile.mkdtemp(prefix=f".{name}.", dir=there)).rmdir()
    except OSError as error:
        if isinstance(error, PermissionError):
            return f"no permission for {there}"
        return f"{there} takes no such file ({reason(error)})"
    return None


def check_place(path: Path, named: str, *, folder: bool = False) -> None:
    """Find out before anything is measured whether a file (or folder) can be made.

    Args:
        path: Where.
        named: The option that says so.
        folder: Whether files are to be made in it.

    Raises:
        SettingsError: It cannot.
    """
    if (why := why_unwritable(path, folder=folder)) is not None:
        raise SettingsError(f"{named} {path} cannot be written: {why}")


def write_atomically(path: Path, text: str | Iterable[str]) -> None:
    """Write a whole file or none, from a text or its pieces.

    It goes through a temporary file in the same folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines([text] if isinstance(text, str) else text)
            sync(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def append(file: BinaryIO, *lines: str) -> int:
    """Write lines behind all others and hand them to the operating system at once.

    If the process is killed, the last line may be torn, see `whole_lines`.

    Returns:
        Where the first of them begins.
    """
    place = file.seek(0, os.SEEK_END)
    file.write("".join(f"{line}\n" for line in lines).encode())
    file.flush()
    return place


def sync(file: IO[Any]) -> None:
    """Wait until all that was written is on the disk, where a power cut cannot take it."""
    file.flush()
    os.fsync(file.fileno())


def whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file that was appended to; behind the last whole one it is cut off."""
    size = 0
    for line in file:
        if line.endswith(b"\n"):
            size += len(line)
            yield line
    file.seek(size)
    file.truncate()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what could not be written.

    Raises:
        CasesError: The system refused.
    """
    try:
        yield
    except OSError as error:
        raise CasesError(f"{path} cannot be written: {reason(error)}") from None
