"""Behind the ``search`` fixture: a search within a test, with its progress and its record."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.engine.completion_file import COMPLETIONS
from pytest_llmprobe.generation import Completion, GenerateConfig, Request
from pytest_llmprobe.plugin.asking import Trace, stopping, trace_of
from pytest_llmprobe.plugin.collection import PROBE
from pytest_llmprobe.plugin.run import Run
from pytest_llmprobe.search.rows import Data, Prompter
from pytest_llmprobe.search.scorers import Scorer
from pytest_llmprobe.search.space import Parameters, Space
from pytest_llmprobe.search.task import SearchTask, recording
from pytest_llmprobe.search.tuner import SearchResult, search

if TYPE_CHECKING:
    import pytest

    from pytest_llmprobe.engine import Engine
    from pytest_llmprobe.engine.completion_file import Outcome
    from pytest_llmprobe.engine.meter import OnProgress

LENGTH = ("max_new_tokens", "stop")
"""Options that are the task's and not a choice of how to decode."""


class Searcher:
    """Searches within one test; what the ``search`` fixture gives.

    Args:
        run: What the session knows.
        item: The test.
        engine: What answers.
    """

    def __init__(self, run: Run, item: pytest.Function, engine: Engine) -> None:
        self._run, self._item, self._engine = run, item, engine
        probe = item.stash.get(PROBE, None)
        self._config = probe.config if probe else GenerateConfig()
        self._name = probe.experiment if probe else item.name

    def __call__(
        self,
        data: Data,
        score: Scorer,
        prompt: Prompter = "{prompt}",
        space: Space = "small",
        *,
        default: Parameters | None = None,
        held_out: float = 0.5,
        folder: str | Path | None = None,
        **how: Any,
    ) -> SearchResult:
        """The best configuration and how it does on held-out rows; skips what cannot be asked.

        Raises:
            CasesError: The data or the scorer cannot be used.
            RequestError: A row cannot be answered.
            SettingsError: A parameter cannot be used.
        """
        item, trace, run = self._item, trace_of(self._item), self._run
        run.answered(self._engine)
        options = {name: getattr(self._config, name) for name in LENGTH} | how
        engine = self._engine
        if folder is not None:
            engine = recording(engine, Path(folder) / COMPLETIONS)
        with run.progress.unit(self._name) as on_progress, stopping(item):
            recorded: Any = _Recorded(engine, trace)
            task = SearchTask(recorded, data, prompt, score, on_progress=on_progress, **options)
            asked = self._default() if default is None else default
            found = search(
                task, space, default=asked, held_out=held_out, seed=run.options.suite.seed
            )
        trace.score("held_out_best", found.held_out_best.mean)
        trace.score("held_out_default", found.held_out_default.mean)
        trace.score("difference", found.difference)
        trace.details["search"] = found.as_dict()
        return found

    def _default(self) -> Parameters:
        """What the probe marker says of decoding."""
        off = GenerateConfig()
        names = [field.name for field in fields(off) if field.name not in LENGTH]
        own = {name: getattr(self._config, name) for name in names}
        return {name: value for name, value in own.items() if value != getattr(off, name)}


class _Recorded:
    """The engine, with every answer kept in the trace: tokens and seconds count in the report."""

    def __init__(self, engine: Engine, trace: Trace) -> None:
        self._engine, self._trace = engine, trace
        self.backend = engine.backend

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "after_batch":  # the engine has the batches; others use it, too
            self._engine = copy(self._engine)
            self._engine.after_batch = value
        else:
            super().__setattr__(name, value)

    def attempt(
        self, requests: Sequence[Request], on_progress: OnProgress | None = None
    ) -> list[Outcome]:
        outcomes = self._engine.attempt(requests, on_progress)
        self._trace.completions += [out for out in outcomes if isinstance(out, Completion)]
        return outcomes
