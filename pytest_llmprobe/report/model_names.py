"""One name for a model's folder, however it is spelt: what reports and baselines call it."""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path


def local_path(source: str) -> Path | None:
    """The file or folder of this machine that a text names, if it names one."""
    try:
        path = Path(source).expanduser()
        return path if source and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long, nobody's home folder, a null byte
        return None


def local_folder(source: str) -> Path | None:
    """The folder of this machine that a text names, if it names one."""
    path = local_path(source)
    return path if path is not None and path.is_dir() else None


def place_of(folder: str) -> Path:
    """Where a folder is. A link keeps its own name: ``latest`` is another model each time."""
    path = Path(os.path.abspath(Path(folder).expanduser()))  # noqa: PTH100 # no link is followed
    return path.parent.resolve() / path.name


def canonical_name(name: str, registered: Container[str], root: Path) -> str:
    """The name of a model: a local folder's is the way to it from ``root`` where it lies in there.

    Args:
        name: What the user calls the model, which is known to be one.
        registered: Names that mean a model of the registry, folder or not.
        root: The folder that holds the storage of runs and baselines.
    """
    if name in registered or local_folder(name) is None:
        return name
    place, start = place_of(name), root.resolve()
    if place == start or not place.is_relative_to(start):
        return place.as_posix()
    inside = place.relative_to(start).as_posix()
    return f"./{inside}" if inside in registered else inside
