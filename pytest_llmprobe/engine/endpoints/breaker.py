"""When a run stops asking: a server that fails again and again is left alone, in its own words.

One request at a time is sent until a server has answered its first, and again while all requests
fail: whether it is back costs one request, not as many as may be under way.
"""

from __future__ import annotations

import re

from pytest_llmprobe.errors import AccessError, OutageError, RequestError

FEW = 3
"""Requests in a row that fail alike before a server's first answer: none will be answered."""

MANY = 16
"""The same after answers: an evaluation alone may ask what a server refuses or cannot do."""

SILENT = 2
"""Requests that nobody answers in the time that each is allowed, before the first answer."""

VARIABLE = re.compile(r"\b(?=\w*\d)[\w-]+\b")
"""Numbers and ids, which differ from one request to the next."""


class Breaker:
    """Counts what fails, and says when to stop.

    Args:
        concurrency: Requests under way at a time; so many may fail at one moment.

    Attributes:
        error: Why nothing more is sent, or None.
    """

    def __init__(self, concurrency: int) -> None:
        self._many = max(FEW, min(MANY, concurrency))
        self._answered = False
        self._failing: set[int] = set()
        self._alike: set[int] = set()
        self._words = ""
        self._given_up: list[str] = []
        self._late = 0
        self.error: AccessError | None = None

    @property
    def answered(self) -> bool:
        """Whether the server has answered anything."""
        return self._answered

    @property
    def doubtful(self) -> bool:
        """Whether all that was asked since the last answer failed, several requests of it."""
        return len(self._failing) >= self._enough

    @property
    def silent(self) -> bool:
        """Whether a server that has never answered lets requests wait, too."""
        return not self._answered and self._late >= SILENT

    @property
    def given_up(self) -> int:
        """Requests since the last answer that have had all their attempts."""
        return len(self._given_up)

    @property
    def _enough(self) -> int:
        return self._many if self._answered else FEW

    def alive(self, answered: bool = True) -> None:
        """The server has answered, or has refused one request for what it says."""
        self._answered = self._answered or answered
        self._failing.clear()
        self._alike.clear()
        self._given_up.clear()
        self._late = 0

    def failed(self, request: int, error: RequestError, late: bool) -> None:
        """An attempt failed; ``late``: nothing came in the time that it had."""
        words = VARIABLE.sub("#", str(error))
        if words != self._words:
            self._alike.clear()
        self._words = words
        self._failing.add(request)
        self._alike.add(request)
        self._late += late

    def is_known(self, error: RequestError) -> bool:
        """Whether a request that failed in these words has had all its attempts."""
        return VARIABLE.sub("#", str(error)) in self._given_up

    def give_up(self, error: RequestError, lasting: bool) -> RequestError:
        """A request gets no further attempt; the error that ends the run, if it is one too many.

        Args:
            error: Why it failed.
            lasting: Whether the server would say the same again.
        """
        self._given_up.append(VARIABLE.sub("#", str(error)))
        alike, every = len(self._alike), len(self._given_up)
        if isinstance(error, AccessError):
            self.error = self.error or error
        elif alike >= (MANY if lasting and self._answered else self._enough):
            self._stop(error, f"{alike} requests in a row have failed like this")
        elif every >= MANY and not lasting:
            self._stop(error, f"{every} requests in a row have failed")
        return self.error or error

    def end(self, error: RequestError) -> RequestError:
        """Stop for what holds for every request; returns the error."""
        self.error = self.error or OutageError(f"{error}; the run stops")
        return self.error

    def _stop(self, error: RequestError, why: str) -> None:
        since = "since the last answer" if self._answered else "and none was answered"
        self.error = self.error or OutageError(f"{error} ({why}, {since}; the run stops)")
