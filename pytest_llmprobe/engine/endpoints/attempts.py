"""As many attempts at a request as it takes and may have; none when no other would succeed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from pytest_llmprobe import errors
from pytest_llmprobe.engine.endpoints.adaptation import AdaptedError
from pytest_llmprobe.engine.endpoints.breaker import Breaker
from pytest_llmprobe.engine.endpoints.budget import Budget, CostError
from pytest_llmprobe.engine.endpoints.connection import Connection
from pytest_llmprobe.engine.endpoints.failures import Failure, failure_of
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.errors import (
    AccessError,
    BudgetError,
    InvalidLogitsError,
    LlmprobeError,
    OutageError,
    PromptTooLongError,
    RefusedError,
    RequestError,
    ServerError,
    UnsupportedError,
)

ITS_OWN = (InvalidLogitsError, PromptTooLongError, RefusedError, UnsupportedError)
"""Errors of one request, which say nothing of others."""

T = TypeVar("T")
Ask = Callable[[Row, float], Awaitable[T]]
"""Sends a row's request for which money is reserved, and reads the answer."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Back-off doubles from the first to the longest."""

START_S = 0.3
"""A server that refuses what it is asked says so within this time; others may be sent then."""

SETTLING_S = 0.02
"""Between two looks at whether requests under way have given money back."""

LATE = 2
"""Attempts at a request that is not answered in the time that it has."""

REFUSALS = 8
"""Settings at most that one request finds out to be refused."""


class Attempts:
    """Sends requests, first come first served, as often as each of them needs.

    Args:
        connection: Where to.
        concurrency: Requests under way at a time, of all calls together.
        timeout_s: Seconds that one attempt may take.
        retries: Attempts after the first, for what may pass: 429, 5xx, lost connections.
        budget: What may be spent.
    """

    def __init__(
        self,
        connection: Connection,
        concurrency: int,
        timeout_s: float,
        retries: int,
        budget: Budget,
    ) -> None:
        self._connection, self._timeout_s, self._retries = connection, timeout_s, retries
        self.budget, self.breaker = budget, Breaker(concurrency)
        self._slots = asyncio.Semaphore(concurrency)
        self._news = asyncio.Event()
        self._prober: Row | None = None
        self._slow = self._dropped = False
        self._not_before, self._waiting = 0.0, 0
        self._under_way: set[asyncio.Task[object]] = set()

    async def all(self, rows: Sequence[Row], ask: Ask[T]) -> list[T | RequestError]:
        """Outcomes in the order of the rows, which are asked in that of their prompts.

        Raises:
            LlmprobeError: Something here, not there, is at fault: nothing more is sent.
        """
        order = sorted(range(len(rows)), key=lambda index: bytes(rows[index].prompt_ids))
        tasks: dict[int, asyncio.Task[T | RequestError]] = {}

        def end() -> None:
            for task in tasks.values():
                task.cancel()

        for index in order:
            tasks[index] = asyncio.create_task(self._one(rows[index], ask, end))
        try:
            await asyncio.gather(*tasks.values())
        finally:
            end()
        return [tasks[index].result() for index in range(len(rows))]

    async def _one(self, row: Row, ask: Ask[T], end: Callable[[], None]) -> T | RequestError:
        async with self._slots:
            try:
                return await asyncio.wait_for(self._answer(row, ask), self.budget.left_s())
            except asyncio.TimeoutError:
                return self.budget.time_is_over()
            except Exception:  # ours: others of this call would meet it, too
                end()
                raise
            finally:
                self._let_on(row)

    async def _answer(self, row: Row, ask: Ask[T]) -> T | RequestError:
        pause, left, refusals = FIRST_PAUSE_S, self._retries, REFUSALS
        late, before = 0, None
        while True:
            try:
                await self._admitted(row)
                before = self.breaker.given_up if before is None else before
                answer = await self._attempt(row, ask)
            except (BudgetError, AccessError) as error:
                return self._clean(error)
            except AdaptedError as error:
                if refusals > 0:
                    refusals -= 1
                    continue
                failure = Failure(error)
            except Exception as error:
                if isinstance(error, LlmprobeError) and not isinstance(error, RequestError):
                    raise  # ours, not the server's
                connection = self._connection
                failure = failure_of(error, connection.package, connection.url, self._timeout_s)
            else:
                self.breaker.alive()
                self._tell()
                return answer
            if isinstance(failure.error, ITS_OWN):  # from a server that works
                self.breaker.alive(answered=False)
                self._tell()
                return self._clean(failure.error)
            self._note(row, failure)
            if failure.again:
                late += failure.late
                others = before and self.breaker.is_known(failure.error)
                if left > 0 and late < LATE and not others:
                    left -= 1
                    await self._pause(pause, failure.wait_s)
                    pause = min(2 * pause, LONGEST_PAUSE_S)
                    continue
            return self._given_up(failure)

    def _note(self, row: Row, failure: Failure) -> None:
        self.breaker.failed(id(row), failure.error, failure.late)
        if failure.late and self.breaker.silent:
            self.breaker.end(self._clean(failure.error))
            self._drop_all()

    async def _admitted(self, row: Row) -> None:
        """Wait for one's turn, where one request at a time finds out whether a server works.

        Raises:
            AccessError: Nothing more is sent.
        """
        while not self._open and self._prober is not None and self._prober is not row:
            await self._news.wait()
        if not self._open:
            self._prober = row
        if (delay := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(delay)
        if self.breaker.error is not None:
            raise self._ended()

    def _ended(self) -> AccessError:
        error = self.breaker.error
        return (
            OutageError("the server does not answer") if error is None else type(error)(*error.args)
        )

    @property
    def _open(self) -> bool:
        breaker = self.breaker
        known = breaker.answered or self._slow
        return breaker.error is not None or (known and not breaker.doubtful)

    async def _attempt(self, row: Row, ask: Ask[T]) -> T:
        reserved = await self.reserve(row)
        loop = asyncio.get_running_loop()
        opening = None if self.breaker.answered else loop.call_later(START_S, self._open_slowly)
        task: asyncio.Task[T] = asyncio.ensure_future(ask(row, reserved))
        self._under_way.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if self._dropped:
                raise self._ended() from None
            raise
        finally:
            task.cancel()
            self._under_way.discard(task)
            if opening is not None:
                opening.cancel()

    async def reserve(self, row: Row, under_way: bool = False) -> float:
        """Money that requests under way may yet give back is waited for.

        Args:
            row: What is to be sent.
            under_way: It is asked once more, by one of those that are.
        """
        self._waiting += under_way
        try:
            while True:
                try:
                    return self.budget.reserve(len(row.prompt_ids), row.room)
                except CostError:
                    if len(self._under_way) <= self._waiting:  # nobody else gives any back
                        raise
                await asyncio.sleep(SETTLING_S)
        finally:
            self._waiting -= under_way

    async def _pause(self, seconds: float, wished: float | None) -> None:
        """A back-off is one request's alone; a server's own wish holds for all."""
        if wished is None:
            await asyncio.sleep(seconds * random.uniform(0.75, 1.25))
        else:
            self._not_before = max(self._not_before, time.monotonic() + wished)

    def _given_up(self, failure: Failure) -> RequestError:
        error = self._clean(failure.error)
        if isinstance(error, AccessError) and failure.unless_answered and self.breaker.answered:
            error = ServerError(str(error))
        if failure.for_all:
            error = self.breaker.end(error)
        else:
            error = self.breaker.give_up(error, lasting=not failure.again)
        self._tell()
        return error

    def _clean(self, error: RequestError) -> RequestError:
        """Without the key, which a server may repeat, and the traceback, whose frames know it."""
        ours = (kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        kind: type[RequestError] = next(ours)  # which a file of answers knows
        return kind(self._connection.hidden(str(error)))

    def _open_slowly(self) -> None:
        self._slow = True
        self._tell()

    def _let_on(self, row: Row) -> None:
        if self._prober is row:
            self._prober = None
            self._tell()

    def _drop_all(self) -> None:
        """What is under way waits for nothing."""
        self._dropped = True
        for task in self._under_way:
            task.cancel()
        self._tell()

    def _tell(self) -> None:
        """Wake those who wait for their turn."""
        self._news.set()
        self._news = asyncio.Event()
