"""``llmprobe models`` and ``llmprobe validate``: what can be run, and whether a report is one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.models.registry import registered
from pytest_llmprobe.models.settings import project_models
from pytest_llmprobe.report.schema import validate


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the commands on the parser's subparsers."""
    models = commands.add_parser("models", help="list the models that have a name")
    models.add_argument("--describe", metavar="NAME", help="load one; say what it can and its path")
    models.set_defaults(run=_models)
    check = commands.add_parser("validate", help="check reports against their schema")
    check.add_argument("reports", type=Path, nargs="+", metavar="REPORT")
    check.set_defaults(run=_validate)


def _models(options: argparse.Namespace) -> None:
    if options.describe is not None:
        _describe(options.describe)
        return
    for name, spec in sorted(registered(project_models()).items()):
        print(f"{name:24}{'embedded' if spec.embedded else spec.source}")


def _describe(name: str) -> None:
    from pytest_llmprobe.engine.fast_backend import FastBackend
    from pytest_llmprobe.models.loading import load_model

    backend = FastBackend(load_model(name, models=project_models()))
    print(json.dumps(backend.info, indent=1, sort_keys=True))
    print(f"path: {backend.path}")


def _validate(options: argparse.Namespace) -> None:
    for path in options.reports:
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            validate(report)
        except (OSError, ValueError) as error:
            raise ReportError(f"{path} cannot be read: {error}") from None
        except ReportError as error:
            raise ReportError(f"{path}: {error}") from None
        print(f"{path}: valid, {len(report['tests'])} tests, gate {report['gate']['verdict']}")
