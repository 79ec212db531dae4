"""The parser of commands and what options of several of them are, for argparse."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

WRONG_USAGE = 4
"""Exit code where what is asked cannot be had: as of pytest, and never that of a verdict."""


class CommandParser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """One line, without the usage, which ``--help`` has."""
        print(f"{self.prog}: {message} ({self.prog} --help says more)", file=sys.stderr)
        raise SystemExit(WRONG_USAGE)


def empty_argument(arguments: Sequence[str]) -> str | None:
    """Which argument is empty, as the end of a sentence: what an unset variable of a script makes.

    No option or name of a command means anything when it is empty.
    """
    for before, argument in zip(["", *arguments], arguments, strict=False):
        name, equals, value = argument.partition("=")
        if name.startswith("--") and equals and not value.strip():
            return f"{name} is empty: give it a value, or leave it out"
        if not argument.strip():
            what = before if before.startswith("-") else "an argument"
            return f"{what} is empty: give it a value, or leave it out"
    return None


def positive(given: str) -> int:
    """A whole number from 1 up."""
    if not given.isdecimal() or int(given) < 1:
        raise argparse.ArgumentTypeError(f"{given!r} is not a whole number from 1 up")
    return int(given)
