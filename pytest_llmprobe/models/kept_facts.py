"""What was found out about a checkpoint once, so that its next start need not: fingerprint, probes.

Kept in the user's cache, under all that decides it: the checkpoint's files by path, size, time of
change and a sample of their bytes, how it is loaded, the machine and the code. Small checkpoints
are looked at anew, which takes no time. No torch here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pytest_llmprobe.models.registry import ModelSpec

Found = TypeVar("Found")

LEAST = 64 * 1024**2
"""Bytes of files that are worth it."""

SAMPLES, SAMPLE = 16, 64 * 1024
"""Pieces of a file that are looked at, and bytes of each; a file that is no longer as a whole."""

IN_PROCESS = (
    *("dtype", "device", "device_map", "attn_implementation", "quantization", "adapter"),
    "trust_remote_code",
)
"""Fields of a spec that decide how its weights are loaded."""

_UNUSED = 90 * 24 * 3600
_CODE = ("models", "engine", "whitebox")


@dataclass(frozen=True)
class KeptFacts:
    """Facts of one checkpoint, in one file; nothing is kept without a path.

    Args:
        path: Of the file.
        how: Where the checkpoint is loaded and as what; the facts of each are kept apart.
    """

    path: Path | None = None
    how: str = ""

    @classmethod
    def of(cls, files: Iterable[Path], *fields: object, how: Sequence[str] = ()) -> KeptFacts:
        """Of what some files hold, loaded in some way."""
        from pytest_llmprobe.models.encoding_cache import user_cache  # which loads numpy

        paths, cache = sorted(files), user_cache()
        try:
            if cache is None or sum(path.stat().st_size for path in paths) < LEAST:
                return cls()
            seen = [_seen(path) for path in paths]
        except OSError:  # whoever reads the file says so
            return cls()
        decides = repr((seen, fields, _code(), platform.machine(), platform.processor()))
        key = hashlib.sha256(decides.encode()).hexdigest()[:32]
        return cls(cache.folder.with_name("facts") / f"{key}.json", ", ".join(how))

    @classmethod
    def of_spec(cls, spec: ModelSpec, how: Sequence[str] = ()) -> KeptFacts:
        """Of the checkpoint that a spec names, an adapter's files among them.

        Args:
            spec: Of a local folder, or of a hub model whose revision is the commit in the cache.
            how: Where it is loaded and as what.
        """
        if spec.in_memory or spec.random_weights:
            return cls()
        folders = [_folder(spec), Path(spec.adapter) if spec.adapter else None]
        files = [
            path
            for folder in folders
            if folder is not None
            for path in folder.iterdir()
            if path.is_file() and not path.name.startswith(".")
        ]
        return cls.of(files, *(getattr(spec, name) for name in IN_PROCESS), how=how)

    def known(self) -> dict[str, dict[str, Any]]:
        """What was found out before, by where and as what the checkpoint was loaded."""
        facts = self._read()
        return {how: found for how, found in facts.items() if isinstance(found, dict)}

    def remembered(self, name: str, find: Callable[[], Found]) -> Found:
        """A fact, found out if it is not known; of built-in types, and never None."""
        found: Found | None = self.known().get(self.how, {}).get(name)
        if found is None:
            found = find()
            if self.path is not None:
                known = self.known()
                ours = known.get(self.how, {}) | {name: found}
                self._write(self.path, known | {self.how: ours})
        return found

    def _read(self) -> dict[str, Any]:
        if self.path is None:
            return {}
        try:
            facts = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # absent or damaged
            return {}
        return facts if isinstance(facts, dict) else {}

    @staticmethod
    def _write(path: Path, facts: dict[str, Any]) -> None:
        """Whole or not at all; a folder that cannot be written only costs time."""
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for old in path.parent.iterdir():
                with contextlib.suppress(OSError):
                    if time.time() - old.stat().st_mtime > _UNUSED:
                        old.unlink()
            handle, name = tempfile.mkstemp(suffix=".part", dir=path.parent)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(facts, file)
            Path(name).replace(path)


def _folder(spec: ModelSpec) -> Path | None:
    if (folder := spec.folder) is not None:
        return folder
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(spec.source, "config.json", revision=spec.revision)
    return Path(config).parent if isinstance(config, str) else None


def _seen(path: Path) -> tuple[str, int, int, str]:
    """What tells a file from another one without reading all of it."""
    status, digest = path.stat(), hashlib.sha256()
    with path.open("rb") as file:
        if status.st_size <= SAMPLES * SAMPLE:
            digest.update(file.read())
        else:
            for number in range(SAMPLES):
                file.seek(number * (status.st_size - SAMPLE) // (SAMPLES - 1))
                digest.update(file.read(SAMPLE))
    return str(path.resolve()), status.st_size, status.st_mtime_ns, digest.hexdigest()


@lru_cache(maxsize=1)
def _code() -> list[object]:
    """The libraries, and this package's own files as they are."""
    found: list[object] = []
    for package in ("torch", "transformers", "pytest-llmprobe"):
        with contextlib.suppress(PackageNotFoundError):
            found.append((package, version(package)))
    root = Path(__file__).parent.parent
    for folder in _CODE:
        for path in sorted((root / folder).glob("*.py")):
            status = path.stat()
            found.append((path.name, status.st_size, status.st_mtime_ns))
    return found
