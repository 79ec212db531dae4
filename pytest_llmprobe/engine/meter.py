"""How far a call of the engine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Progress:
    """How far a call of the engine is."""

    done: int
    total: int
    generated_tokens: int
    seconds: float


OnProgress: TypeAlias = Callable[[Progress], None]


class Meter:
    """Turns what a backend reports into progress."""

    def __init__(self, total: int, done: int, on_progress: OnProgress | None) -> None:
        self._total, self.done, self.generated = total, done, 0
        self._start = time.perf_counter()
        self._on_progress = on_progress

    def add(self, tokens: int, rows: int = 0) -> None:
        """So many tokens more, and rows that are done."""
        self.generated += tokens
        self.done += rows
        if self._on_progress is not None:
            seconds = time.perf_counter() - self._start
            self._on_progress(Progress(self.done, self._total, self.generated, seconds))
