"""What a user may call a run or a baseline, and the file or folder that is meant."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from pytest_llmprobe.errors import ReportError, SettingsError
from pytest_llmprobe.report.baseline import NAME, baseline_path
from pytest_llmprobe.report.model_names import canonical_name
from pytest_llmprobe.report.run_file import read_json

LAST = "last"
"""The newest run that has a report."""


def find_run(given: str, storage: Path, model: str | None = None) -> Path:
    """The file or folder that a user means.

    Args:
        given: A baseline's ``name`` or ``model/name``, a path, the name of a run's folder, or
            ``last``: the newest run that has a report.
        storage: Folder of runs and baselines.
        model: Whose baseline a bare name means if several models have one of this name.

    Raises:
        ReportError: There is no such run; lists the baselines and the last runs.
        SettingsError: Several models have a baseline of this name, and ``model`` has none.
    """
    owner, _, name = given.rpartition("/")
    found = sorted(storage.glob(f"baselines/*/{name}.json")) if re.fullmatch(NAME, name) else []
    if owner:
        found = [path for path in found if _is_of(path, owner, storage)]
    if len(found) > 1 and model is not None:
        found = [path for path in found if _is_of(path, model, storage)] or found
    if len(found) > 1:
        own = baseline_path(storage, model or owner, name)
        found = [own] if own in found else found
    if len(found) > 1:
        owners = ", ".join(f"{_owner(path)}/{name}" for path in found)
        raise SettingsError(f"several models have a baseline {name!r}: name one of {owners}")
    for path in (*found, Path(given), storage / "runs" / given):
        if path.exists():
            return path
    runs = sorted(storage.glob("runs/*/report.json"))  # their names begin with the time
    if given == LAST:
        if not runs:
            raise ReportError(f"there are no finished runs in {storage / 'runs'}")
        return runs[-1].parent
    known = sorted(f"{_owner(path)}/{path.stem}" for path in storage.glob("baselines/*/*.json"))
    names = [path.parent.name for path in reversed(runs)]
    what = _what_there_is(given, known, names, storage)
    raise ReportError(f"there is no baseline, file or run {given!r}; {what}")


def _what_there_is(given: str, baselines: list[str], runs: list[str], storage: Path) -> str:
    """What there is, and what of it has a name that is close."""
    bare = [name.rpartition("/")[2] for name in baselines]
    close = difflib.get_close_matches(given, {*baselines, *bare, *runs}, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    listed = f"the baselines are {', '.join(baselines)}" if baselines else "there are no baselines"
    lately = f"; the last runs are {', '.join(runs[:3])}" if runs else ""
    return f"{hint}{listed} in {storage}{lately}"


def _owner(path: Path) -> str:
    """The model that a baseline is of; that of one that cannot be read, as its folder says."""
    try:
        return str(read_json(path).get("model"))
    except ReportError:
        return path.parent.name


def _is_of(path: Path, model: str, storage: Path) -> bool:
    names = [canonical_name(name, (), storage.parent) for name in (_owner(path), model)]
    return names[0] == names[1] or path.parent.name == model


def called(given: str, path: Path, of: str, other: str) -> str:
    """What to call a run that another model's is compared with: with its own model's name.

    Args:
        given: As the user named it.
        path: Its file or folder.
        of: The model that it is of.
        other: The model that is compared with it.
    """
    if of == other:
        return given
    is_baseline = path.parent.parent.name == "baselines"
    return f"baseline {path.stem} of {of}" if is_baseline else f"{given} of {of}"
