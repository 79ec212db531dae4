"""An engine for one configuration after the other, which answers all of them at the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.engine.backend import Backend
from pytest_llmprobe.engine.completion_file import Outcome
from pytest_llmprobe.engine.completion_store import CompletionStore, request_like
from pytest_llmprobe.engine.engine import Engine
from pytest_llmprobe.engine.meter import OnProgress
from pytest_llmprobe.generation import GenerateConfig, Request
from pytest_llmprobe.search.space import SEED, Configuration, configuration
from pytest_llmprobe.search.task import CALL
from pytest_llmprobe.suite import seed_of

if TYPE_CHECKING:
    from pytest_llmprobe.models.loading import LoadedModel


class AheadEngine(Engine):
    """Answers requests under one configuration at a time; asked for one, it answers all of them.

    Args:
        model: The loaded model.
        configurations: What will be asked for later.
        path: Every answer is recorded there, and those that are there are not generated again.
        how: As for ``Engine``.
    """

    def __init__(
        self,
        model: LoadedModel | Backend,
        configurations: Sequence[Configuration],
        path: Path | None = None,
        **how: Any,
    ) -> None:
        super().__init__(model, **how)
        self.configurations = configurations
        self.active = configuration({}, GenerateConfig())
        self._answers: dict[str, Outcome] = {}
        if path is not None:
            self.store = CompletionStore.going_on(path, self.backend.info, self.batch_size)

    def attempt(
        self, requests: Sequence[Request], on_progress: OnProgress | None = None
    ) -> list[Outcome]:
        """As ``Engine.attempt``; what was generated ahead is only looked up.

        While the default is active, a request holds the evaluation's own config, and the others
        are made of it: all are one call, in which each prompt is computed once.
        """
        asked = [_seeded(request, self.active) for request in requests]
        wanted = {request_like(request): request for request in asked}
        if not self.active.parameters:
            for request in requests:  # those of a prompt side by side
                for one in self.configurations:
                    own = {name: value for name, value in one.parameters if name != SEED}
                    config = replace(request.config, **own)
                    ahead = _seeded(replace(request, config=config), one)
                    wanted[request_like(ahead)] = ahead
        missing = [key for key in wanted if key not in self._answers]
        for start in range(0, len(missing), CALL):
            keys = missing[start : start + CALL]
            outcomes = super().attempt([wanted[key] for key in keys], on_progress)
            self._answers.update(zip(keys, outcomes, strict=True))
        return [self._answers[request_like(request)] for request in asked]


def _seeded(request: Request, one: Configuration) -> Request:
    return replace(request, seed=seed_of(one.seed, request.seed)) if one.seed else request
