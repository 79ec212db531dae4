"""The backend that asks a server: many requests at a time, repeated if it helps."""

from __future__ import annotations

import asyncio
import random
import time
import warnings
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar, get_args

from pytest_llmprobe.case import Prompt, RawPrompt
from pytest_llmprobe.engine.backend import Backend, Generated, OnTokens
from pytest_llmprobe.engine.endpoints.budget import Budget, CostError
from pytest_llmprobe.engine.endpoints.connection import Connection, NoJsonError
from pytest_llmprobe.engine.endpoints.echo import EchoedText, read_continuation, read_echo, sent_of
from pytest_llmprobe.engine.endpoints.failures import Failure, failure_of
from pytest_llmprobe.engine.endpoints.loop import LoopThread
from pytest_llmprobe.engine.endpoints.openai_wire import OpenAIWire
from pytest_llmprobe.engine.endpoints.options import CAPABILITIES, CONCURRENCY, TIMEOUT_S
from pytest_llmprobe.engine.planning import Row, RowSteering
from pytest_llmprobe.errors import (
    AccessError,
    NotInProcessError,
    PromptTooLongError,
    RequestError,
    ServerError,
    SteeringError,
    UnsupportedError,
)
from pytest_llmprobe.generation import (
    FinishReason,
    GenerateConfig,
    Steer,
    Usage,
)

T = TypeVar("T")

RETRIES = 4

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Back-off doubles from the first to the longest."""

SETTLING_S = 0.02
"""Between two looks at whether requests under way have given money back."""


class EndpointBackend(Backend):
    """Asks a server. A row's ``prompt_ids`` are the bytes that say its prompt in the protocol.

    Args:
        connection: Where to.
        concurrency: Requests under way at a time.
        timeout_s: Seconds that one attempt may take.
        retries: Attempts after the first, for what may pass: 429, 5xx, lost connections.
        stream: Ask for streamed answers, which tells when the first token came.
        budget: What may be spent; None for anything.

    Attributes:
        arrived: Told each answer as it arrives, in another thread; None to tell nobody.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        concurrency: int = CONCURRENCY,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        stream: bool = False,
        budget: Budget | None = None,
    ) -> None:
        self._connection, self._concurrency, self._timeout_s = connection, concurrency, timeout_s
        self._retries, self._stream = retries, stream
        self._budget = budget or Budget()
        self._loop = LoopThread()
        self._served: str | None = None
        self._refused: AccessError | None = None
        self._not_before = 0.0
        self._under_way = 0
        self._odd_ends: set[str] = set()
        self._told: set[str] = set()
        self.thinks = connection.wire.asking.thinking in ("on", "auto")
        self.arrived: Callable[[Row, Generated], None] | None = None

    @property
    def info(self) -> dict[str, Any]:
        """Where the model is; nothing of the key, and nothing of the URL's query."""
        info: dict[str, Any] = {
            "source": self._connection.url,
            "protocol": self._connection.package.__name__,
            "served_model": self._served,
            "capabilities": dict(CAPABILITIES),
            "date": "the server's own",
        }
        asking = self._connection.wire.asking
        if asking.thinking is not None or asking.template:
            info |= {"thinking": asking.thinking, "template": dict(asking.template)}
        if info["protocol"] == "anthropic":
            info["sampling"] = "the service's own: its protocol cannot ask for greedy decoding"
        return info

    def encode(self, prompt: Prompt) -> bytes:
        """What a request says of the prompt."""
        return self._connection.wire.encode(prompt)

    def encode_continuation(self, prompt: Prompt, continuation: str) -> tuple[bytes, bytes]:
        """As ``echo.sent_of``, where the protocol has log-probabilities."""
        wire = self._connection.wire
        if not isinstance(wire, OpenAIWire):
            raise UnsupportedError("this protocol has no log-probabilities of texts")
        return sent_of(wire.encode, prompt, continuation)

    def steering(self, prompt: Prompt, steer: Steer) -> RowSteering:
        """The model is elsewhere."""
        raise SteeringError("a model behind a server cannot be steered: load it in this process")

    def generate(self, rows: Sequence[Row], on_tokens: OnTokens) -> list[Generated | RequestError]:
        """Send rows whose prompts begin alike one after another: servers cache prefixes."""
        if rows and (reason := self._connection.wire.unsupported(rows[0].config)):
            return [UnsupportedError(reason) for _ in rows]

        async def ask(row: Row, reserved: float) -> Generated:
            score = self._score if row.continuation else self._ask
            answer = await score(row, reserved)
            if self.arrived is not None:
                self.arrived(row, answer)
            on_tokens(answer.usage.generated_tokens if answer.usage else 0)
            return answer

        outcomes = self._loop.run(self._all(rows, ask))
        for reason in sorted(self._odd_ends - self._told):
            self._told.add(reason)
            warnings.warn(
                f"the server ends answers with the reason {reason!r}, which is kept as it is",
                stacklevel=2,
            )
        return outcomes

    def log_probabilities(self, texts: Sequence[RawPrompt]) -> list[EchoedText | RequestError]:
        """What the server says of texts that it is to repeat, as vLLM does.

        Raises:
            NotInProcessError: The protocol has no log-probabilities.
        """
        if not isinstance(self._connection.wire, OpenAIWire):
            raise NotInProcessError("this protocol has no log-probabilities of texts")
        config = GenerateConfig(max_new_tokens=1)  # some servers refuse to generate none
        said: list[Any] = [self.encode(text) for text in texts]
        rows = [Row(index, text, config) for index, text in enumerate(said)]
        return self._loop.run(self._all(rows, self._echo))

    def close(self) -> None:
        """End the connections."""
        with suppress(Exception):  # there is nothing left to lose
            self._loop.run(self._connection.client.close())
        self._loop.close()

    async def _all(
        self, rows: Sequence[Row], ask: Callable[[Row, float], Awaitable[T]]
    ) -> list[T | RequestError]:
        """Outcomes in the order of the rows, which are asked in that of their prompts."""
        outcomes: dict[int, T | RequestError] = {}
        waiting = iter(sorted(range(len(rows)), key=lambda index: bytes(rows[index].prompt_ids)))

        async def work() -> None:
            for index in waiting:
                outcomes[index] = await self._one(rows[index], ask)

        workers = min(self._concurrency, len(rows))
        await asyncio.gather(*(work() for _ in range(workers)))
        return [outcomes[index] for index in range(len(rows))]

    async def _one(self, row: Row, ask: Callable[[Row, float], Awaitable[T]]) -> T | RequestError:
        """One row's answer after as many attempts as it takes and may have."""
        pause = FIRST_PAUSE_S
        for left in range(self._retries, -1, -1):
            try:
                return await self._attempt(row, ask)
            except RequestError as error:
                failure = Failure(error, again=isinstance(error, NoJsonError))
            except Exception as error:
                connection = self._connection
                failure = failure_of(error, connection.package, connection.url, self._timeout_s)
            if not failure.again or left == 0:
                break
            if failure.wait_s is None:  # a back-off is this request's alone
                await asyncio.sleep(pause * random.uniform(0.75, 1.25))
            else:  # the server's own wish holds for all
                self._not_before = max(self._not_before, time.monotonic() + failure.wait_s)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        return self._given_up(failure)

    async def _attempt(self, row: Row, ask: Callable[[Row, float], Awaitable[T]]) -> T:
        if (delay := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(delay)
        if self._refused is not None:
            raise AccessError(str(self._refused))
        reserved = await self._reserve(row)
        self._under_way += 1
        try:
            return await ask(row, reserved)
        finally:
            self._under_way -= 1

    async def _ask(self, row: Row, reserved: float) -> Generated:
        answer = await self._answered(row, reserved)
        if self._wants_room(row, answer):
            larger = replace(row, thinking=row.config.thinking_tokens)
            reserved = await self._reserve(larger)
            with suppress(PromptTooLongError):  # then the answer is one that was cut off
                answer = await self._answered(larger, reserved)
        return answer

    def _wants_room(self, row: Row, answer: Generated) -> bool:
        """Whether all that was said is a thought, which the answer's room or a stop string cut.

        Nothing was said of thoughts, so the server's template decides, and room is made where it
        is needed.
        """
        if self._connection.wire.asking.thinking is not None or row.thinking:
            return False
        all_thought = answer.thought is not None and not answer.text.strip()
        return all_thought and (answer.finish_reason == "length" or bool(row.config.stop))

    async def _answered(self, row: Row, reserved: float) -> Generated:
        connection = self._connection
        call = connection.wire.call(row)
        start = time.perf_counter()
        send = connection.stream if self._stream else connection.send
        try:
            response, first = await asyncio.wait_for(send(call), self._timeout_s)
        except connection.package.APIStatusError as error:
            said = failure_of(error, connection.package, connection.url, self._timeout_s)
            if isinstance(said.error, PromptTooLongError):
                raise said.error from None
            raise
        latency = time.perf_counter() - start
        answer = connection.wire.answer(response, row)
        self._served = answer.model or self._served or ""
        if answer.usage is not None:
            self._budget.settle(reserved, answer.usage)
        if answer.finish_reason not in get_args(FinishReason):
            self._odd_ends.add(answer.finish_reason)
        return Generated(
            answer.text,
            (),
            answer.finish_reason,
            usage=answer.usage or Usage(0, 0),
            latency_s=latency,
            first_token_s=first,
            thought=answer.thought,
        )

    async def _repeated(self, row: Row) -> Any:
        call = self._connection.wire.call(row)
        call.body.update(echo=True, logprobs=1)
        response, _ = await asyncio.wait_for(self._connection.send(call), self._timeout_s)
        return response

    async def _echo(self, row: Row, reserved: float) -> EchoedText:
        text = read_echo(await self._repeated(row))
        self._budget.settle(reserved, text.usage)
        return text

    async def _score(self, row: Row, reserved: float) -> Generated:
        start = time.perf_counter()
        response = await self._repeated(replace(row, continuation=()))
        scored, usage = read_continuation(response, bytes(row.continuation).decode())
        self._budget.settle(reserved, usage)
        return replace(scored, latency_s=time.perf_counter() - start)

    async def _reserve(self, row: Row) -> float:
        """Money that requests under way may yet give back is waited for."""
        while True:
            try:
                return self._budget.reserve(len(row.prompt_ids), row.room)
            except CostError:
                if self._under_way == 0:
                    raise
            await asyncio.sleep(SETTLING_S)

    def _given_up(self, failure: Failure) -> RequestError:
        """The error without the key and without a traceback, whose frames know the key.

        A refusal holds for all requests to come, unless it may be this one's alone.
        """
        text = str(failure.error)
        for secret in self._connection.secrets:  # a server may repeat what it was sent
            text = text.replace(secret, "[key]")
        error = type(failure.error)(text)
        if isinstance(error, AccessError):
            if failure.unless_answered and self._served is not None:
                return ServerError(text)
            self._refused = error
        return error
