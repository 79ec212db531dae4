"""``llmprobe``: what needs no pytest run."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

from pytest_llmprobe.cli import (
    bars,
    continuing,
    fidelity,
    influence,
    init,
    memorization,
    models,
    output_length,
    reports,
    search,
    show,
)
from pytest_llmprobe.cli.arguments import WRONG_USAGE, CommandParser, empty_argument
from pytest_llmprobe.errors import LlmprobeError, RequestError, StorageError
from pytest_llmprobe.models.local_packages import remedy


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    4 if what was asked cannot be had, 7 if this machine cannot keep it, 1 if a server or a model
    fails at it or the command's own verdict is no, 130 after Ctrl-C.
    """
    parser = command_parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    # argparse takes what follows "--" for paths only where no option stands before it.
    end = given.index("--") if "--" in given else len(given)
    if (empty := empty_argument(given[:end])) is not None:
        parser.error(empty)
    options = parser.parse_args(given[:end])
    options.for_pytest = given[end + 1 :]
    if options.for_pytest and not options.takes_pytest_options:
        parser.error(f"this command takes no options for pytest: {' '.join(options.for_pytest)}")
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `llmprobe ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell calls it
    except LlmprobeError as error:
        print(f"llmprobe: {_own_options(str(error), options)}", file=sys.stderr)
        return exit_code(error)
    except ModuleNotFoundError as error:
        if (what := remedy(error)) is None:
            raise
        print(f"llmprobe: {what}", file=sys.stderr)
        return WRONG_USAGE
    except KeyboardInterrupt:
        print("llmprobe: interrupted", file=sys.stderr)
        return 130
    return 0


def exit_code(error: LlmprobeError) -> int:
    """As `main` returns it for an error."""
    if isinstance(error, StorageError):
        return 7
    return 1 if isinstance(error, RequestError) else WRONG_USAGE


def _own_options(words: str, options: argparse.Namespace) -> str:
    """What pytest calls --llmprobe-base-url is --base-url in a command that has it."""
    known = {name.replace("_", "-") for name in vars(options)}
    return re.sub(
        r"--llmprobe-([a-z-]+)", lambda f: f"--{f[1]}" if f[1] in known else str(f[0]), words
    )


class _Version(argparse.Action):
    """Looks the version up when it is asked for: that takes longer than the parser does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"pytest-llmprobe {version('pytest-llmprobe')}")
        parser.exit()


def command_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = CommandParser(prog="llmprobe", description=__doc__)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.set_defaults(takes_pytest_options=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    groups = (init, models, reports, show, bars, fidelity, memorization, continuing)
    for group in (*groups, output_length, influence, search):
        group.add_commands(commands)
    return parser
