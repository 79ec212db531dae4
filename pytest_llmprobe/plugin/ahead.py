"""Units that are asked before their turn.

A server is asked for the next ones while one is waited for and scored: a unit waits for its
slowest answer, and with others behind it as many requests as may be are under way until the run's
last. A model in this process answers small units together: a step of thirty rows takes little more
time than one of three.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_llmprobe.engine.completion_file import Outcome
from pytest_llmprobe.generation import Request

if TYPE_CHECKING:
    from pytest_llmprobe.engine import Engine
    from pytest_llmprobe.engine.meter import OnProgress, Progress


AHEAD = 3
"""Units: the slowest answer of one takes as long as several others may."""


class Asked:
    """A unit's requests on their way, in a thread of its own.

    Args:
        engine: One that several threads may call.
        requests: Of the unit.
    """

    def __init__(self, engine: Engine, requests: Sequence[Request]) -> None:
        self._engine, self.requests = engine, requests
        self._outcomes: Future[list[Outcome]] = Future()
        self._show: OnProgress | None = None
        # A daemon: a run that is interrupted does not wait for what is still under way.
        threading.Thread(target=self._ask, name="llmprobe-unit", daemon=True).start()

    def outcomes(self, on_progress: OnProgress | None) -> list[Outcome]:
        """Wait for them; whoever waits is told how far they are."""
        self._show = on_progress
        try:
            return self._outcomes.result()
        finally:
            self._show = None

    def _ask(self) -> None:
        try:
            self._outcomes.set_result(self._engine.attempt(self.requests, self._tell))
        except BaseException as error:
            self._outcomes.set_exception(error)

    def _tell(self, progress: Progress) -> None:
        if (show := self._show) is not None:
            show(progress)


@dataclass(frozen=True)
class Answered:
    """A unit that was answered together with an earlier one."""

    answers: Sequence[Outcome]

    def outcomes(self, on_progress: OnProgress | None) -> Sequence[Outcome]:
        """Them; nobody waits."""
        return self.answers
