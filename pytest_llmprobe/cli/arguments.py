"""What options of several commands are, for argparse."""

from __future__ import annotations

import argparse


def positive(given: str) -> int:
    """A whole number from 1 up."""
    if not given.isdecimal() or int(given) < 1:
        raise argparse.ArgumentTypeError(f"{given!r} is not a whole number from 1 up")
    return int(given)
