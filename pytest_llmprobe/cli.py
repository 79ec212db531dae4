"""``llmprobe``: what needs no pytest run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_llmprobe.errors import LlmprobeError, ReportError
from pytest_llmprobe.models.registry import registered
from pytest_llmprobe.report.schema import validate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (1 for an error, 2 for wrong usage)."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except LlmprobeError as error:
        print(f"llmprobe: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llmprobe", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    models = commands.add_parser("models", help="list the models that have a name")
    models.add_argument("--describe", metavar="NAME", help="load one; say what it can and its path")
    models.set_defaults(run=_models)
    check = commands.add_parser("validate", help="check a report against its schema")
    check.add_argument("report", type=Path)
    check.set_defaults(run=_validate)
    return parser


def _models(options: argparse.Namespace) -> None:
    if options.describe is not None:
        _describe(options.describe)
        return
    for name, spec in sorted(registered().items()):
        print(f"{name:24}{'embedded' if spec.embedded else spec.source}")


def _describe(name: str) -> None:
    from pytest_llmprobe.engine.fast_backend import FastBackend
    from pytest_llmprobe.models.loading import load_model

    loaded = load_model(name)
    print(json.dumps(loaded.info, indent=1, sort_keys=True))
    print(f"path: {FastBackend(loaded).path}")


def _validate(options: argparse.Namespace) -> None:
    try:
        report = json.loads(options.report.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{options.report} cannot be read: {error}") from None
    validate(report)
    print(
        f"{options.report}: valid, {len(report['tests'])} tests, gate {report['gate']['verdict']}"
    )
