"""The configuration file: models of the user's own, and bars for each model."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from pytest_llmprobe.errors import ModelError, SettingsError
from pytest_llmprobe.models.registry import registered, resolve
from pytest_llmprobe.report.model_names import canonical_name
from pytest_llmprobe.report.plan import Bar

Gates: TypeAlias = Mapping[str, Mapping[str, Bar | bool]]
"""Bars by model and experiment; False for an experiment that is not gated."""


def settings_file(given: str | None, start: Path, root: Path) -> Path | None:
    """The configuration file that the user names from ``start``, or the project's.

    Raises:
        SettingsError: There is no such file.
    """
    if given is None:
        return project_file(root)
    path = start / given
    if not path.is_file():
        raise SettingsError(f"--llmprobe-config: there is no file {path}")
    return path


def project_file(folder: Path) -> Path | None:
    """A project's own configuration file: its llmprobe.toml, or else its pyproject.toml."""
    candidates = (folder / "llmprobe.toml", folder / "pyproject.toml")
    return next((path for path in candidates if path.is_file()), None)


def project_models() -> Mapping[str, Mapping[str, Any]]:
    """The models of the project in the working folder, for commands without a pytest run."""
    models: Mapping[str, Mapping[str, Any]] = read_settings(project_file(Path())).get("models", {})
    return models


def read_toml(text: str) -> dict[str, Any]:
    """What a TOML text says.

    Raises:
        ValueError: It is no TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def read_settings(path: Path | None) -> dict[str, Any]:
    """``[tool.llmprobe]`` of a pyproject.toml, or a whole llmprobe.toml.

    Raises:
        SettingsError: No TOML, or a table that does not exist, or no table where one must be.
    """
    if path is None:
        return {}
    try:
        content = read_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    settings: Any = content
    prefix = in_tables(path, content)
    for depth, name in enumerate(prefix, 1):
        settings = settings.get(name, {})
        _need_table(settings, f"{path}: [{'.'.join(prefix[:depth])}]")
    if unknown := sorted(settings.keys() - {"models", "gates"}):
        raise SettingsError(f"{path}: unknown table {unknown[0]!r}; known: gates, models")
    for name, table in settings.items():
        _need_table(table, f"{path}: {'.'.join((*prefix, name))}")
    found: dict[str, Any] = settings
    return found


def in_tables(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    """In which tables of a file the settings are: those of ``tool.llmprobe``, or none."""
    tool = content.get("tool")
    within = path.name == "pyproject.toml" or (isinstance(tool, Mapping) and "llmprobe" in tool)
    return ("tool", "llmprobe") if within else ()


def _need_table(value: object, where: str) -> None:
    if not isinstance(value, Mapping):
        what = "a list of tables, as [[...]] makes it" if isinstance(value, list) else repr(value)
        example = "[models.NAME]" if where.endswith("models") else "[gates.MODEL]"
        raise SettingsError(f"{where} is {what[:80]}: give one table, such as {example}")


def read_gates(settings: Mapping[str, Any], model: str, root: Path) -> Gates:
    """The bars of all models, each checked; a folder is called as ``canonical_name`` does.

    Args:
        settings: As ``read_settings`` gives them.
        model: Name of the model under evaluation.
        root: The folder that holds the storage of runs and baselines.

    Raises:
        SettingsError: A bar is none, or a model's name is no model's; with the close names.
    """
    models = settings.get("models", {})
    known, found = registered(models), dict[str, Mapping[str, Bar | bool]]()
    for name, table in settings.get("gates", {}).items():
        where = f"[tool.llmprobe.gates.{name}]"
        _need_table(table, where)
        if name != model and not name.startswith((".", "/", "~")):  # may be on another machine
            _check_model(where, name, models)
        called = canonical_name(name, known, root)
        if called in found:
            raise SettingsError(f"{where}: there is another table of this folder's")
        found[called] = {key: _bar(where, key, bar) for key, bar in table.items()}
    return found


def _check_model(where: str, name: str, models: Mapping[str, Any]) -> None:
    try:
        resolve(name, models)
    except ModelError as error:
        raise SettingsError(f"{where}: {error}") from None


def _bar(where: str, experiment: str, bar: object) -> Bar | bool:
    where = f"{where} {experiment}"
    if bar is False:
        return False
    if not isinstance(bar, Mapping):
        raise SettingsError(f"{where}: give a table such as {{ pass_rate = 0.9 }}, or false")
    return replace(Bar.of(bar, where), of_model=True)
