"""The engine that asks a server: everything at once, and kept as it arrives."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_llmprobe.engine.backend import Generated
from pytest_llmprobe.engine.completion_file import Outcome
from pytest_llmprobe.engine.completions import completion_of
from pytest_llmprobe.engine.endpoints.backend import EndpointBackend
from pytest_llmprobe.engine.engine import Engine, OnProgress
from pytest_llmprobe.engine.planning import Row
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

    def attempt(
        self, requests: Sequence[Request], on_progress: OnProgress | None = None
    ) -> list[Outcome]:
        """As Engine; what a killed process has received, a resumed run finds."""

        def arrived(row: Row, answer: Generated) -> None:
            alone = Timings(answer.latency_s or 0.0, 1)  # its share is known with the last answer
            self._keep(requests, {row.index: completion_of(row, answer, alone)})

        self._endpoint.arrived = arrived
        try:
            return super().attempt(requests, on_progress)
        finally:
            self._endpoint.arrived = None
