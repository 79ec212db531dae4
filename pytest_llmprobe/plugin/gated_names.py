"""Names under ``[tool.llmprobe.gates]``: experiments that there are, and scores that they give.

An experiment is known if it was collected, or if a test file of the project defines it: a run may
collect only a part of them. A known one that this run should have collected and did not (its module
was skipped, say) stays in the plan without cases, so that its bar is not judged.
"""

from __future__ import annotations

import ast
import difflib
import fnmatch
import inspect
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.plugin.options import Options
from pytest_llmprobe.report.limits import TIMINGS
from pytest_llmprobe.report.plan import Bar, ExperimentPlan

if TYPE_CHECKING:
    import pytest

MAX_FOLDERS = 5_000
"""Folders that are looked through for test files: more are no project."""


def check_experiments(config: pytest.Config, options: Options, collected: Collection[str]) -> None:
    """Refuse a bar of an experiment that no test file has.

    Raises:
        SettingsError: Names it, with the close names.
    """
    for model, bars in options.gates.items():
        missing = bars.keys() - set(collected)
        found = defined(config, missing)
        for name in sorted(missing):
            close = difflib.get_close_matches(name, collected, n=3)
            if found is None and not close:  # too many files to be sure
                continue
            if found is None or name not in found:
                hint = " or ".join(close) if close else ", ".join(sorted(collected))
                raise SettingsError(
                    f"[tool.llmprobe.gates.{model}] {name}: there is no such experiment; "
                    f"{'did you mean' if close else 'collected were:'} {hint}"
                )


def not_collected(
    config: pytest.Config, options: Options, collected: Collection[str]
) -> Iterator[ExperimentPlan]:
    """Experiments with a bar for this model whose file this run was to collect, and gave none."""
    bars = options.bars if options.gate not in ("baseline", "none") else {}
    gated = {n: bar.alone for n, bar in bars.items() if isinstance(bar, Bar) and bar.alone}
    if is_narrowed(config) or not (missing := gated.keys() - set(collected)):
        return
    asked = [
        place for place in _places(config.args, config.invocation_params.dir) if place.exists()
    ]
    for name, file in sorted((defined(config, missing) or {}).items()):
        if any(file.is_relative_to(place) for place in asked):
            yield ExperimentPlan(name, str(file), 0, [], gated[name])


def is_narrowed(config: pytest.Config) -> bool:
    """Whether the user chose among the tests of the files that are collected."""
    option = config.option
    names = ("keyword", "markexpr", "deselect", "lf", "stepwise", "ignore", "ignore_glob")
    chosen = any(getattr(option, name, None) for name in names)
    return chosen or any("::" in argument for argument in config.args)


def defined(config: pytest.Config, names: Collection[str]) -> Mapping[str, Path] | None:
    """Test files that define experiments of these names; None if there are too many to look at."""
    found: dict[str, Path] = {}
    if not names:
        return found
    patterns = {
        n: re.compile(rf"def test_{re.escape(n)}\b|[\"']{re.escape(n)}[\"']") for n in names
    }
    arguments = _places(config.args, config.invocation_params.dir)
    roots = {config.rootpath, *(p if p.is_dir() else p.parent for p in arguments if p.exists())}
    for number, folder in enumerate(_folders(config, roots)):
        if number >= MAX_FOLDERS:
            return None
        for file in sorted(folder.glob("*.py")):
            is_test = any(fnmatch.fnmatch(file.name, p) for p in config.getini("python_files"))
            if is_test and os.access(file, os.R_OK):
                text = file.read_text(encoding="utf-8", errors="replace")
                found |= {name: file for name, p in patterns.items() if p.search(text)}
    return found


def _places(arguments: Collection[str], start: Path) -> list[Path]:
    return [(start / argument.partition("::")[0]).resolve() for argument in arguments]


def _folders(config: pytest.Config, roots: Collection[Path]) -> Iterator[Path]:
    """Those below the roots in which pytest would look for tests, each once."""
    tops = [r for r in roots if not any(r != o and r.is_relative_to(o) for o in roots)]
    passed_by = config.getini("norecursedirs")
    for top in sorted(tops):
        for path, folders, files in os.walk(top):
            if "pyvenv.cfg" in files:
                folders.clear()
                continue
            folders[:] = [f for f in folders if not any(fnmatch.fnmatch(f, p) for p in passed_by)]
            yield Path(path)


def check_scores(node: pytest.Function, experiment: str, bar: Bar) -> None:
    """Refuse a bar for a score that the test never gives, where its file says all names in full.

    Raises:
        SettingsError: Names the score, with those that are given.
    """
    gated = (bar.score or {}).keys() - TIMINGS.keys()
    given = _scores(node) if gated else None
    if given is not None and (unknown := sorted(gated - given)):
        close = difflib.get_close_matches(unknown[0], [*given, *TIMINGS], n=3)
        names = ", ".join(sorted(given)) or "none"
        hint = f"did you mean {' or '.join(close)}" if close else f"it gives {names}"
        raise SettingsError(f"{experiment}: the test gives no score {unknown[0]!r}; {hint}")


def _scores(node: pytest.Function) -> set[str] | None:
    """The scores that a test's file gives by name; None if another name may come about."""
    if {"choice", "text_likelihood"} & set(node.fixturenames):
        return None  # they score by themselves
    if "score" not in inspect.signature(node.function).parameters:
        return None if "score" in node.fixturenames else set()
    tree = ast.parse(inspect.getsource(node.module))
    calls = [
        one
        for one in ast.walk(tree)
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Name) and one.func.id == "score"
    ]
    uses = sum(
        isinstance(one, ast.Name) and one.id == "score" and isinstance(one.ctx, ast.Load)
        for one in ast.walk(tree)
    )
    names = [c.args[0].value for c in calls if c.args and isinstance(c.args[0], ast.Constant)]
    if uses != len(calls) or len(calls) != len(names):
        return None
    return {str(name) for name in names} | _in_summary(node, tree)


def _in_summary(node: pytest.Function, tree: ast.Module) -> set[str]:
    """Names that the marker's summary function may give: any text in a function of its file."""
    marker = node.get_closest_marker("probe")
    if marker is None or marker.kwargs.get("summary") is None:
        return set()
    functions = [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)]
    inside = (one for function in functions for line in function.body for one in ast.walk(line))
    texts = (one.value for one in inside if isinstance(one, ast.Constant))
    return {text for text in texts if isinstance(text, str)}
