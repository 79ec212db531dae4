"""The engine that asks a server: everything at once, and kept as it arrives."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from pytest_llmprobe.engine.backend import Generated
from pytest_llmprobe.engine.completion_file import Outcome
from pytest_llmprobe.engine.completions import completion_of
from pytest_llmprobe.engine.endpoints.backend import EndpointBackend
from pytest_llmprobe.engine.engine import Engine, Meter, OnProgress
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.errors import RequestError
from pytest_llmprobe.generation import Request, Timings

WHOLE_UNIT = 2**62
"""Tokens of a batch at most: the server plans its own batches."""


class EndpointEngine(Engine):
    """Sends all requests of a call at once, and keeps each answer as it arrives: it may cost money.

    With a ``batch_size`` so many at once, each of which is waited for.
    """

    def __init__(self, backend: EndpointBackend, *, batch_size: int | None = None) -> None:
        super().__init__(backend, batch_size=batch_size, token_budget=WHOLE_UNIT)
        self._endpoint = backend
        self._call = threading.local()
        self._noted: str | None = None

    def attempt(
        self, requests: Sequence[Request], on_progress: OnProgress | None = None
    ) -> list[Outcome]:
        """As Engine; what a killed process has received, a resumed run finds.

        Several threads may call.
        """
        self._call.requests = requests
        return super().attempt(requests, on_progress)

    def _generated(self, batch: Sequence[Row], meter: Meter) -> Sequence[Generated | RequestError]:
        requests, before = self._call.requests, meter.done

        def arrived(row: Row, answer: Generated) -> None:
            alone = Timings(answer.latency_s or 0.0, 1)  # its share is known with the last answer
            self._keep(requests, {row.index: completion_of(row, answer, alone)})
            self._note_model()
            usage = answer.usage
            meter.add(usage.generated_tokens or 0 if usage is not None else 0, rows=1)

        answers = self._endpoint.receive(batch, arrived)
        meter.done = before
        return answers

    def _note_model(self) -> None:
        """Keep with the answers which model the server says it is, once it has."""
        if self.store is not None and self._noted != self._endpoint.served:
            self._noted = self._endpoint.served
            self.store.note(self._endpoint.info)
