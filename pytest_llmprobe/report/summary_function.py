"""An eval file's own function of its experiment's records: where it is, and what it gives.

Under pytest-xdist the process that gathers the records collects no tests and so has no functions.
The plan carries where the function is; in every mode a fresh copy of its file is loaded to call it.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import reprlib
import sys
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pytest_llmprobe.errors import LlmprobeError, ReportError, SettingsError
from pytest_llmprobe.report.files import to_json
from pytest_llmprobe.report.record import MAX_TEXT, Record, bounded, explained

FAILED = "error"
"""The one key of the summary of a function that failed."""

MAX_ERROR = 500
"""Characters that are kept of what it failed with."""


@dataclass(frozen=True)
class SummaryFunction:
    """Where the function is that the marker names, as in ``probe(summary=summarise)``.

    That is the path of the eval file, and a name at its top level: defined or imported there.
    """

    path: str
    name: str

    @classmethod
    def of(cls, function: object, module: ModuleType, path: Path) -> SummaryFunction:
        """Find a function in the eval file that names it.

        Raises:
            SettingsError: It cannot be found there by name, or does not take the records.
        """
        shown = getattr(function, "__qualname__", reprlib.repr(function))
        nested = "<" in getattr(function, "__qualname__", "")  # <lambda>, make.<locals>.summarise
        name = next((name for name, value in vars(module).items() if value is function), None)
        if not callable(function) or name is None or nested:
            raise SettingsError(
                f"probe(summary={shown}): give a function that is defined or imported at the top "
                f"level of {path.name}, and no lambda or function within a function: when the run "
                "ends, the file is loaded anew and the function called by its name"
            )
        try:
            inspect.signature(function).bind(())
        except TypeError as error:
            raise SettingsError(
                f"probe(summary={shown}): it is called with one argument, the records: {error}"
            ) from None
        return cls(str(path), name)

    def __call__(self, records: Sequence[Record]) -> dict[str, Any]:
        """What the function says about judged records, or ``{"error": ...}`` if it fails.

        It receives copies, sorted by id. Without any it is not called, and the summary is empty.
        """
        if not records:
            return {}
        try:
            with _loaded(Path(self.path)) as module:
                return checked(getattr(module, self.name)(deepcopy(tuple(records))))
        except BaseException as error:  # pytest.skip is no Exception; the report must not be lost
            where = [
                f" ({Path(self.path).name}:{frame.lineno})"
                for frame in traceback.extract_tb(error.__traceback__)
                if frame.filename == self.path
            ]
            ours = isinstance(error, LlmprobeError)  # whole: it says what to do
            text = bounded(explained(error), MAX_TEXT if ours else MAX_ERROR)
            return {FAILED: f"{self.name}: {text}{where[-1] if where else ''}"}


@contextmanager
def _loaded(path: Path) -> Generator[ModuleType]:
    """The module of a file under a name of its own, with what it imports from beside it."""
    root, packages = path.parent, list[str]()
    while (root / "__init__.py").is_file():
        packages.insert(0, root.name)
        root = root.parent
    name = ".".join([*packages, f"_llmprobe_summary_of_{path.stem}"])
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    sys.path.insert(0, str(root))  # as pytest does where it collects the file
    sys.modules[name] = module  # dataclasses look for their own module there
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path[:] = before
        sys.modules.pop(name, None)


def checked(summary: object) -> dict[str, Any]:
    """The summary in exact built-in types that JSON knows.

    Raises:
        ReportError: It is no dict, or says where it holds what JSON does not know.
    """
    if not isinstance(summary, dict):
        raise ReportError(f"it gave {reprlib.repr(summary)}; a summary is a dict")
    if FAILED in summary:
        raise ReportError(f"the key {FAILED!r} stands for a summary that failed; choose another")
    plain: dict[str, Any] = _checked(summary, "")
    to_json(plain)
    return plain


def _checked(value: object, place: str) -> Any:
    if value is None or type(value) in (str, bool, int):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return [_checked(item, f"{place}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if type(key) is not str:
                inside = f" of {place}" if place else ""
                raise ReportError(f"the key {reprlib.repr(key)}{inside} is no string")
        return {key: _checked(item, f"{place}.{key}".strip(".")) for key, item in value.items()}
    raise ReportError(
        f"{place} is {reprlib.repr(value)}; a summary holds finite numbers (int, float), strings, "
        "booleans, None, and lists and dicts of them"
    )
