"""The configuration file: models of the user's own, and bars for each model."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.report.plan import Bar


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


def read_settings(path: Path | None) -> dict[str, Any]:
    """``[tool.llmprobe]`` of a pyproject.toml, or a whole llmprobe.toml.

    Raises:
        SettingsError: No TOML, or a table that does not exist.
    """
    if path is None:
        return {}
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    tool = content.get("tool", {}).get("llmprobe", {})
    settings: dict[str, Any] = tool or ({} if path.name == "pyproject.toml" else content)
    if unknown := sorted(settings.keys() - {"models", "gates"}):
        raise SettingsError(f"{path}: unknown table {unknown[0]!r}; known: gates, models")
    return settings


def bars_of(gates: Mapping[str, Mapping[str, Any]], model: str) -> dict[str, Bar | bool]:
    """A model's bars by experiment; False for one that is not gated.

    Raises:
        SettingsError: A bar is none.
    """
    bars: dict[str, Bar | bool] = {}
    for experiment, bar in gates.get(model, {}).items():
        where = f"[tool.llmprobe.gates.{model}] {experiment}"
        if bar is not False and not isinstance(bar, Mapping):
            raise SettingsError(f"{where}: give a table such as {{ pass_rate = 0.9 }}, or false")
        bars[experiment] = False if bar is False else Bar.of(bar, where)
    return bars
