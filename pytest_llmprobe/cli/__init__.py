"""``llmprobe``: what needs no pytest run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pytest_llmprobe.cli import (
    bars,
    fidelity,
    influence,
    memorization,
    models,
    output_length,
    reports,
    search,
)
from pytest_llmprobe.errors import LlmprobeError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (1 for an error, 2 for wrong usage)."""
    parser = _parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    # argparse takes what follows "--" for paths only where no option stands before it.
    end = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:end])
    options.for_pytest = given[end + 1 :]
    if options.for_pytest and not options.takes_pytest_options:
        parser.error(f"this command takes no options for pytest: {' '.join(options.for_pytest)}")
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
    parser.set_defaults(takes_pytest_options=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (models, reports, bars, fidelity, memorization, output_length, influence, search):
        group.add_commands(commands)
    return parser
