"""How far a long command is, on stderr: a line that is redrawn on a terminal, else a few lines."""

from __future__ import annotations

import sys
import time

TERMINAL_S, LOG_S = 0.2, 10.0
"""Seconds between two lines."""


class Progress:
    """Shows the latest state every now and then, and the last one when it is closed."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._interval = TERMINAL_S if self._terminal else LOG_S
        self._last = time.monotonic()
        self._state = self._shown = ""

    def show(self, state: str) -> None:
        """Say how far it is, unless that was said just now."""
        self._state = state
        now = time.monotonic()
        if now - self._last >= self._interval:
            self._last = now
            self._write()

    def _write(self) -> None:
        if self._state != self._shown:
            self._shown = self._state
            line = f"\r\x1b[K{self._state}" if self._terminal else f"{self._state}\n"
            print(line, end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._write()
        if self._terminal and self._shown:
            print(file=sys.stderr)
