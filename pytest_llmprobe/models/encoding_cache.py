"""Token ids of long texts on disk, so that a second run need not tokenise again."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import zlib
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.int64]

LIMIT = 2 * 1024**3
"""Bytes that the cache may take; the entries that were not used for longest go first."""

_TRIM_EVERY = 64 * 1024**2


class EncodingCache:
    """Arrays of whole numbers from 0 up, by key; several processes may share the folder.

    A file is a one-dimensional .npy array: the checksum of the others, then the numbers. It appears
    whole or not at all. One that is damaged counts as absent; a folder that cannot be written only
    costs time.

    Args:
        folder: Where the files are; made when the first one is written.
        limit: Bytes that they may take.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder = folder
        self._limit = limit
        self._written = _TRIM_EVERY  # look at the folder at the first write

    def get(self, key: str) -> Ids | None:
        """The numbers that were kept under a key, or None."""
        path = self._path(key)
        try:
            stored = np.load(path, allow_pickle=False)
            os.utime(path)  # used now
        except (OSError, ValueError, EOFError):  # absent or damaged
            return None
        if stored.ndim != 1 or stored.dtype != np.uint32 or not stored.size:
            return None
        numbers = stored[1:]
        return numbers.astype(np.int64) if _checksum(numbers) == stored[0] else None

    def put(self, key: str, numbers: Ids) -> None:
        """Keep numbers under a key, if the disk lets us."""
        path = self._path(key)
        kept = numbers.astype(np.uint32)
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(suffix=".part", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    np.save(file, np.concatenate(([_checksum(kept)], kept)).astype(np.uint32))
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            self._written += kept.nbytes
            if self._written >= min(_TRIM_EVERY, self._limit // 4):
                self._trim()

    def _trim(self) -> None:
        """Remove what was not used for longest until a quarter of the limit is free."""
        self._written = 0
        files = []
        for path in self.folder.glob("*/*"):
            with contextlib.suppress(OSError):  # another process removed it
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        if total <= self._limit:
            return
        for _, size, path in sorted(files):
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size
            if total <= self._limit * 3 // 4:
                return

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key[2:]}.npy"


def _checksum(numbers: NDArray[np.uint32]) -> int:
    return zlib.crc32(np.ascontiguousarray(numbers).tobytes())


def user_cache() -> EncodingCache | None:
    """The user's own cache: in ``LLMPROBE_CACHE``, else where caches go; None if it is ``off``."""
    asked = os.environ.get("LLMPROBE_CACHE", "")
    if asked.lower() in ("off", "0", "no", "false"):
        return None
    try:
        folder = Path(asked).expanduser() if asked else _default_folder()
    except RuntimeError:  # nobody's home
        return None
    return EncodingCache(folder / "encodings")


def _default_folder() -> Path:
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "pytest-llmprobe"
