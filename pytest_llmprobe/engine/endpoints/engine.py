"""The engine that asks a server: everything at once, and kept as it arrives."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_llmprobe.engine.completion_file import NONE, Outcomes
from pytest_llmprobe.engine.endpoints.backend import EndpointBackend
from pytest_llmprobe.engine.engine import Engine
from pytest_llmprobe.engine.planning import WHOLE_UNIT
from pytest_llmprobe.generation import Request


class EndpointEngine(Engine):
    """Sends all requests of a call at once, and keeps each answer as it arrives: it may cost money.

    With a ``batch_size`` so many at once, each of which is waited for.
    """

    def __init__(self, backend: EndpointBackend, *, batch_size: int | None = None) -> None:
        super().__init__(backend, batch_size=batch_size, token_budget=WHOLE_UNIT)
        self._endpoint = backend
        self._noted: str | None = None

    def _keep(self, requests: Sequence[Request], outcomes: Outcomes, told: Outcomes = NONE) -> None:
        """What a killed process has received, a resumed run finds; several threads may call."""
        super()._keep(requests, outcomes, told)
        self._note_model()

    def _note_model(self) -> None:
        """Keep with the answers which model the server says it is, once it has."""
        if self.store is not None and self._noted != self._endpoint.served:
            self._noted = self._endpoint.served
            self.store.note(self._endpoint.info)
