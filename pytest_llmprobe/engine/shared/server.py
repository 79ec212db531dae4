"""The process with the model. It ends when its last client has gone."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from io import BufferedRWPair
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.engine.backend import (
    NO_LIKELIHOODS,
    AnswersRowByRow,
    Backend,
    Generated,
    ScoresContinuations,
)
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.engine.shared.messages import (
    outcome_out,
    prompt_in,
    receive,
    row_in,
    send,
    steer_in,
)
from pytest_llmprobe.errors import LlmprobeError, RequestError, UnsupportedError

if TYPE_CHECKING:
    from pytest_llmprobe.engine.shared.forks import Forks

LINGER_S = 5.0
"""A worker may be replaced, or come later than another leaves."""

FIRST_S = 60.0
"""Somebody has started this process, so somebody comes."""

LOOK_S = 0.2


class EngineServer:
    """Serves one backend to many clients.

    Without ``forks`` one batch is computed at a time. With it each client is answered by a fork of
    this process, which has the weights without a copy, so their batches are computed side by side.

    Args:
        backend: What answers.
        encode: Token ids of a prompt by a tokenizer of its own: while a batch is computed, the next
            is encoded.
        joined: Set when the first client comes.
        forks: What a client's fork is, where there are to be any.
    """

    def __init__(
        self,
        backend: Backend,
        encode: Any,
        joined: threading.Event | None = None,
        forks: Forks | None = None,
    ) -> None:
        self._backend, self._encode, self._forks = backend, encode, forks
        self._joined = joined or threading.Event()
        self._model: AbstractContextManager[Any] = threading.Lock()
        self._tokenizer = threading.Lock()

    def serve(self, path: Path) -> None:
        """Until nobody is there any more."""
        with socket.socket(socket.AF_UNIX) as listener:
            bound = path.with_suffix(".new")  # who finds the path may connect at once
            bound.unlink(missing_ok=True)
            listener.bind(str(bound))
            bound.chmod(0o600)
            listener.listen(128)
            bound.replace(path)
            clients: list[_Client] = []
            last = time.monotonic() + FIRST_S - LINGER_S
            while time.monotonic() - last < LINGER_S and path.exists():
                if select.select([listener], [], [], LOOK_S)[0]:
                    connection, _ = listener.accept()
                    self._joined.set()
                    clients.extend(self._attended(connection))
                # Even while its batch is computed.
                clients = [client for client in clients if not client.has_gone()]
                if clients:
                    last = time.monotonic()

    def _attended(self, connection: socket.socket) -> Iterator[_Client]:
        """A client that is answered from now on, by a thread or by a fork; none if none is left."""
        if self._forks is None:
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()
            yield _Client(connection)
            return
        server = os.getpid()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # our one thread only looks
                pid = os.fork()
        except OSError as error:  # the others go on
            print(f"no process for another client: {error}", file=sys.stderr, flush=True)
            connection.close()
            return
        if pid:
            yield _Client(connection, pid)
            return
        try:
            self._model = self._forks.begin(server)
            self._answer(connection)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)  # what is to be done at the end is the parent's

    def _answer(self, client: socket.socket) -> None:
        try:
            with client.makefile("rwb") as file:
                told = ("context_length", "max_batch_size", "shares_prefixes", "thinks", "info")
                hello = {name: getattr(self._backend, name) for name in told}
                shared = getattr(self._backend, "context_is_shared", True)
                copies = getattr(self._backend, "copies_prefixes", False)
                send(file, hello | {"context_is_shared": shared, "copies_prefixes": copies})
                while (message := receive(file)) is not None:
                    send(file, self._reply(message, file))
        except OSError:  # it has gone
            pass
        finally:
            client.close()

    def _reply(self, message: dict[str, Any], file: BufferedRWPair) -> dict[str, Any]:
        try:
            return {"result": self._result(message, file)}
        except LlmprobeError as error:
            return outcome_out(error)
        except OSError:
            raise
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            if not self._backend.is_out_of_memory(error):
                return {"failure": words}
        self._backend.release_memory()  # outside the except block: the traceback holds tensors
        return {"out_of_memory": words}

    def _result(self, message: dict[str, Any], file: BufferedRWPair) -> Any:
        if message["call"] == "encode":
            with self._tokenizer:
                return self._encode(prompt_in(message["prompt"]))
        if message["call"] == "encode_continuation":
            with self._model:  # its own tokenizer
                backend = self._backend
                if not isinstance(backend, ScoresContinuations):
                    raise UnsupportedError(NO_LIKELIHOODS)
                prompt = prompt_in(message["prompt"])
                return backend.encode_continuation(prompt, message["continuation"])
        if message["call"] == "steering":
            with self._model:
                prompt = prompt_in(message["prompt"])
                return asdict(self._backend.steering(prompt, steer_in(message["steer"])))
        rows = [row_in(row) for row in message["rows"]]
        with self._model:
            answers = self._generated(rows, lambda reply: send(file, reply))
        return [outcome_out(answer) for answer in answers]

    def _generated(
        self, rows: Sequence[Row], tell: Callable[[dict[str, Any]], None]
    ) -> Sequence[Generated | RequestError]:
        def told(tokens: int) -> None:
            tell({"tokens": tokens})

        if not isinstance(self._backend, AnswersRowByRow):
            return self._backend.generate(rows, told)
        return self._backend.receive(
            rows, told, lambda row, answer: tell({"arrived": row.index} | outcome_out(answer))
        )


@dataclass
class _Client:
    """A connection, and the process that answers it where that is not this one."""

    connection: socket.socket
    pid: int | None = None

    def has_gone(self) -> bool:
        """Whether the client has, or the process that answers it; then nothing is left of both."""
        gone = _has_hung_up(self.connection)
        if self.pid is None:
            return gone
        if gone:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        elif os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            return False
        with suppress(OSError):  # it has hung up
            self.connection.shutdown(socket.SHUT_RDWR)  # later forks have it open, too
        self.connection.close()
        return True


def _has_hung_up(client: socket.socket) -> bool:
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def end(folder: Path) -> None:
    """Leave nothing behind, and wait for no batch of a client that has gone."""
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)
