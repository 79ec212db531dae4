"""A worker's side: a Backend whose model is in the engine's process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from pytest_llmprobe.case import Prompt, prompt_json
from pytest_llmprobe.engine.backend import Arrived, Generated, OnTokens
from pytest_llmprobe.engine.planning import Row, RowSteering
from pytest_llmprobe.engine.shared.messages import outcome_in, receive, send, steering_in
from pytest_llmprobe.errors import LlmprobeError, ModelError, RequestError
from pytest_llmprobe.generation import Steer


class SharedBackend:
    """Asks the engine's process over a connected socket, one call at a time.

    Raises:
        ModelError: The process ends before it has said what its model is.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket, self._file = connection, connection.makefile("rwb")
        hello = self._receive()
        self.context_length: int | None = hello["context_length"]
        self.max_batch_size: int | None = hello["max_batch_size"]
        self.context_is_shared: bool = hello["context_is_shared"]
        self.shares_prefixes: bool = hello["shares_prefixes"]
        self.copies_prefixes: bool = hello["copies_prefixes"]
        self.thinks: bool = hello["thinks"]
        self.info: dict[str, Any] = hello["info"]

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids by the model's own tokenizer."""
        ids: list[int] = self._call("encode", prompt=prompt_json(prompt))
        return ids

    def encode_continuation(
        self, prompt: Prompt, continuation: str
    ) -> tuple[Sequence[int], Sequence[int]]:
        """As ``PromptEncoder.pair``."""
        given = {"prompt": prompt_json(prompt), "continuation": continuation}
        context, following = self._call("encode_continuation", **given)
        return context, following

    def steering(self, prompt: Prompt, steer: Steer) -> RowSteering:
        """What steers a prompt's row."""
        found = self._call("steering", prompt=prompt_json(prompt), steer=asdict(steer))
        return steering_in(found)

    def generate(self, rows: Sequence[Row], on_tokens: OnTokens) -> list[Generated | RequestError]:
        """One batch."""
        return self.receive(rows, on_tokens, lambda row, answer: None)

    def receive(
        self, rows: Sequence[Row], on_tokens: OnTokens, arrived: Arrived
    ) -> list[Generated | RequestError]:
        """One batch; the process tells answers as rows end."""
        row_of = {row.index: row for row in rows}

        def told(reply: dict[str, Any]) -> None:
            if "tokens" in reply:
                on_tokens(reply["tokens"])
                return
            answer = outcome_in(reply)
            assert isinstance(answer, Generated)
            arrived(row_of[reply["arrived"]], answer)

        found = self._call("generate", told, rows=[asdict(row) for row in rows])
        return [
            a if isinstance(a, Generated | RequestError) else RequestError(str(a))
            for a in map(outcome_in, found)
        ]

    def is_out_of_memory(self, error: Exception) -> bool:
        """As the process found."""
        return isinstance(error, RemoteOutOfMemory)

    def release_memory(self) -> None:
        """The process has done so."""

    def close(self) -> None:
        """Hang up; the process ends when all have."""
        for each in (self._file, self._socket):
            with suppress(OSError):  # the file may still want to write
                each.close()

    def _call(
        self,
        method: str,
        told: Callable[[dict[str, Any]], None] = lambda _: None,
        **arguments: Any,
    ) -> Any:
        try:
            send(self._file, {"call": method} | arguments)
            while not {"tokens", "arrived"}.isdisjoint(reply := self._receive()):
                told(reply)
        except OSError as error:
            self.close()
            raise ModelError(f"the shared engine is gone: {error}") from None
        if "out_of_memory" in reply:
            raise RemoteOutOfMemory(reply["out_of_memory"])
        if "failure" in reply:
            raise EngineFailure(reply["failure"])
        if "error" in reply:
            raised = outcome_in(reply)
            assert isinstance(raised, LlmprobeError)
            raise raised
        return reply["result"]

    def _receive(self) -> dict[str, Any]:
        if (reply := receive(self._file)) is None:
            self.close()
            raise ModelError("the shared engine is gone: its process has ended")
        return reply


class RemoteOutOfMemory(RuntimeError):
    """The engine's process has not enough memory for a batch."""


class EngineFailure(RuntimeError):
    """An exception of the engine's process that is none of ours, as its type and words."""
