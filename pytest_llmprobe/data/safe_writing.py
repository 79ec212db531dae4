"""How files are written so that a run that is killed loses nothing that it has measured."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any, BinaryIO

from pytest_llmprobe.data.rows import reason
from pytest_llmprobe.errors import CasesError


def new_folder(parent: Path, name: str) -> Path:
    """Make a folder ``name``, or ``name-2`` and so on where another run was as fast."""
    for number in count(1):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError("unreachable: the loop has no end")


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
