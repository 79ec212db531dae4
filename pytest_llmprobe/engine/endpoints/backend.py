"""The backend that asks a server: many requests at a time, repeated if it helps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, get_args

from pytest_llmprobe.case import Prompt, RawPrompt
from pytest_llmprobe.engine.backend import Arrived, Backend, Generated, OnTokens
from pytest_llmprobe.engine.endpoints.adaptation import REFUSING, Adaptation, AdaptedError
from pytest_llmprobe.engine.endpoints.attempts import Attempts
from pytest_llmprobe.engine.endpoints.budget import Budget
from pytest_llmprobe.engine.endpoints.connection import Connection
from pytest_llmprobe.engine.endpoints.echo import (
    IGNORED,
    EchoedText,
    read_continuation,
    read_echo,
    sent_of,
)
from pytest_llmprobe.engine.endpoints.failures import failure_of, words_of
from pytest_llmprobe.engine.endpoints.loop import LoopThread
from pytest_llmprobe.engine.endpoints.openai_wire import OpenAIWire
from pytest_llmprobe.engine.endpoints.options import CAPABILITIES, CONCURRENCY, TIMEOUT_S
from pytest_llmprobe.engine.endpoints.prompt_scores import PromptScores, ScoredToken
from pytest_llmprobe.engine.endpoints.wire import Call, found
from pytest_llmprobe.engine.planning import Row, RowSteering
from pytest_llmprobe.errors import (
    NotInProcessError,
    PromptTooLongError,
    RequestError,
    SteeringError,
    UnsupportedError,
)
from pytest_llmprobe.generation import (
    FinishReason,
    GenerateConfig,
    Steer,
    Usage,
)

RETRIES = 4

NO_ECHO = {400, 404, 405, 422, 500, 501}
"""How servers answer that have no /completions, or no log-probabilities there."""


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
        served: What the served model calls itself, once it has answered.
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
        self._connection, self._timeout_s, self._stream = connection, timeout_s, stream
        self._budget = budget or Budget()
        self._attempts = Attempts(connection, concurrency, timeout_s, retries, self._budget)
        self._adaptation = Adaptation()
        self._loop = LoopThread()
        self.served: str | None = None
        self._odd_ends: set[str] = set()
        self._no_echo: str | None = None
        self._prompt_scores = PromptScores(connection, timeout_s)
        self.thinks = connection.wire.asking.thinking in ("on", "auto")

    @property
    def info(self) -> dict[str, Any]:
        """Where the model is; nothing of the key, and nothing of the URL's query."""
        info: dict[str, Any] = {
            "source": self._connection.url,
            "protocol": self._connection.package.__name__,
            "served_model": self.served,
            "capabilities": dict(CAPABILITIES),
            "date": "the server's own",
        }
        asking = self._connection.wire.asking
        if asking.thinking is not None or asking.template:
            info |= {"thinking": asking.thinking, "template": dict(asking.template)}
        if self._connection.extra:
            info["server_options"] = dict(self._connection.extra)
        if self._adaptation.said:
            info["adapted"] = dict(sorted(self._adaptation.said.items()))
        if self._odd_ends:
            info["finish_reasons"] = sorted(self._odd_ends)
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
        return self.receive(rows, on_tokens, lambda row, answer: None)

    def receive(
        self, rows: Sequence[Row], on_tokens: OnTokens, arrived: Arrived
    ) -> list[Generated | RequestError]:
        """As ``generate``; each answer is told as it arrives, in another thread.

        Several threads may call: requests of an earlier call are sent before those of a later one.
        """
        if rows and (reason := self._connection.wire.unsupported(rows[0].config)):
            return [UnsupportedError(reason) for _ in rows]

        async def ask(row: Row, reserved: float) -> Generated:
            score = self._score if row.continuation else self._ask
            answer = await score(row, reserved)
            arrived(row, answer)
            on_tokens(_generated_tokens(answer))
            return answer

        return self._loop.run(self._attempts.all(rows, ask))

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
        return self._loop.run(self._attempts.all(rows, self._echo))

    def forced(self, texts: Sequence[tuple[Prompt, str]]) -> list[list[ScoredToken] | RequestError]:
        """How likely the server finds each token of given answers to prompts."""

        async def ask(row: Row, reserved: float) -> list[ScoredToken]:
            tokens = await self._prompt_scores.of(*texts[row.index])
            self._budget.settle(reserved, Usage(None, None))
            return tokens

        config = GenerateConfig(max_new_tokens=1)
        said: list[Any] = [self.encode(prompt) for prompt, _ in texts]
        rows = [Row(index, text, config) for index, text in enumerate(said)]
        return self._loop.run(self._attempts.all(rows, ask))

    def close(self) -> None:
        """End the connections."""
        with suppress(Exception):  # there is nothing left to lose
            self._loop.run(self._connection.client.close())
        self._loop.close()

    async def _ask(self, row: Row, reserved: float) -> Generated:
        answer = await self._answered(row, reserved)
        if self._wants_room(row, answer):
            larger = replace(row, thinking=row.config.thinking_tokens)
            reserved = await self._attempts.reserve(larger, under_way=True)
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
        start = time.perf_counter()
        response, first = await self._exchange(self._connection.wire.call(row), self._stream)
        latency = time.perf_counter() - start
        answer = self._connection.wire.answer(response, row)
        self.served = answer.model or self.served or ""
        self._budget.settle(reserved, answer.usage)
        if answer.finish_reason not in get_args(FinishReason):
            self._odd_ends.add(answer.finish_reason)
        return Generated(
            answer.text,
            (),
            answer.finish_reason,
            usage=answer.usage,
            latency_s=latency,
            first_token_s=first,
            thought=answer.thought,
        )

    async def _exchange(self, call: Call, stream: bool) -> tuple[Any, float | None]:
        """The response to a call, and when its text began.

        Raises:
            AdaptedError: The server refuses a setting, and the next attempt is without it.
            PromptTooLongError: It says so.
            UnsupportedError: It is known to refuse a setting that the call is about.
        """
        connection, adaptation = self._connection, self._adaptation
        collected = connection.wire.stream(call) if stream else None
        asked = connection.body(call)
        sent = Call(call.path, adaptation.applied(asked))
        try:
            exchange = (
                connection.send(sent) if collected is None else connection.stream(sent, collected)
            )
            return await asyncio.wait_for(exchange, self._timeout_s)
        except connection.package.APIStatusError as error:
            said = failure_of(error, connection.package, connection.url, self._timeout_s)
            if isinstance(said.error, PromptTooLongError):
                raise said.error from None
            if error.status_code in REFUSING:
                words = connection.hidden(words_of(error.body))
                parameter = found(error.body, "param")
                if adaptation.learn(asked, sent.body, str(parameter or ""), words):
                    raise AdaptedError(str(said.error)) from None
            raise

    async def _repeated(self, row: Row) -> Any:
        """The response to a text that the server is to repeat.

        Raises:
            UnsupportedError: It does not; it is not asked a second time.
        """
        if self._no_echo is not None:
            raise UnsupportedError(self._no_echo)
        call = self._connection.wire.call(row)
        call.body.update(echo=True, logprobs=1)
        try:
            response, _ = await self._exchange(call, stream=False)
        except self._connection.package.APIStatusError as error:
            if error.status_code not in NO_ECHO:
                raise
            self._no_echo = f"{IGNORED} ({error.status_code}: {words_of(error.body)})"
            raise UnsupportedError(self._no_echo) from None
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


def _generated_tokens(answer: Generated) -> int:
    return answer.usage.generated_tokens or 0 if answer.usage else 0
