"""``llmprobe models`` and ``llmprobe validate``: what can be run, and whether a report is one."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import NoReturn

from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.models.registry import registered, resolve
from pytest_llmprobe.models.settings import project_models
from pytest_llmprobe.report.schema import validate


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the commands on the parser's subparsers."""
    models = commands.add_parser("models", help="list the models that have a name")
    models.add_argument(
        "--describe", metavar="NAME", help="what loads, what it needs and how it is run"
    )
    models.set_defaults(run=_models)
    check = commands.add_parser("validate", help="check reports against their schema")
    check.add_argument("reports", type=Path, nargs="+", metavar="REPORT")
    check.set_defaults(run=_validate)


def _models(options: argparse.Namespace) -> None:
    if options.describe is not None:
        _describe(options.describe)
        return
    from pytest_llmprobe.models.description import checkpoint_size, in_bytes

    for name, spec in sorted(registered(project_models()).items()):
        size = checkpoint_size(spec)
        where = "embedded" if spec.embedded else spec.source
        print(f"{name:24}{where}" + ("" if size is None else f", {in_bytes(size)} here"))


def _describe(name: str) -> None:
    from pytest_llmprobe.models.description import describe

    for what, words in describe(resolve(name, project_models())):
        print(f"{what:<10}{words}")


def _say_invalid(why: str) -> NoReturn:
    print(f"llmprobe: {why}", file=sys.stderr)
    raise SystemExit(1)


def _validate(options: argparse.Namespace) -> None:
    for path in options.reports:
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            validate(report)
        except OSError as error:
            raise ReportError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            _say_invalid(f"{path} cannot be read: {error}")
        except ReportError as error:
            _say_invalid(f"{path}: {error}")
        print(f"{path}: valid, {len(report['tests'])} tests, gate {report['gate']['verdict']}")
