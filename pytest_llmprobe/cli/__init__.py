"""``llmprobe``: what needs no pytest run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pytest_llmprobe.cli import influence, memorization, models, output_length, reports, search
from pytest_llmprobe.errors import LlmprobeError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (1 for an error, 2 for wrong usage)."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except LlmprobeError as error:
        print(f"llmprobe: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("llmprobe: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llmprobe", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (models, reports, memorization, output_length, influence, search):
        group.add_commands(commands)
    return parser
