"""The self-check of a run: once, in the first process that asks the model, before any case."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.plugin.options import Options
from pytest_llmprobe.plugin.process import Process
from pytest_llmprobe.plugin.progress import UnitProgress
from pytest_llmprobe.report.files import to_json, write_atomically
from pytest_llmprobe.report.self_check_text import self_check_lines

if TYPE_CHECKING:
    from pytest_llmprobe.engine import Engine


class SessionCheck:
    """Whether the model says the same in whatever company it is asked, if the user asked that."""

    def __init__(self, process: Process, options: Options) -> None:
        self._process, self._options = process, options
        self._path = process.scratch / "self-check.json"

    def make_once(self, engine: Engine, progress: UnitProgress) -> None:
        """Check the model and leave what is found for the report, if nobody else has.

        The check has engines of its own, without a store, so no answer of it is kept.
        """
        options = self._options
        if not options.self_check or not self._process.is_first("self-check"):
            return
        from pytest_llmprobe.engine.check_prompts import check_prompts
        from pytest_llmprobe.engine.self_check import self_check

        prompts, size = check_prompts(), engine.batch_size
        if options.spec.protocol is not None and size is None:
            size = len(prompts.alone) + len(prompts.shared)  # a server plans its own batches
        with progress.unit("self-check") as on_progress:
            backend, loaded = engine.backend, getattr(engine.backend, "loaded", None)
            found = self_check(
                loaded or backend,
                *prompts,
                other=backend if hasattr(backend, "other") else None,
                batch_size=size,
                token_budget=options.token_budget,
                drafts=options.drafts,
                on_progress=on_progress,
            )
        write_atomically(self._path, to_json(found.as_dict()))

    def found(self) -> dict[str, Any] | None:
        """The report's ``self_check``: what a process of this session has found, or None."""
        if not self._options.self_check or not self._path.exists():
            return None
        found: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        return found

    def lines(self, found: dict[str, Any] | None) -> list[str]:
        """What the terminal says of it; if it was asked for and not made, that."""
        if found is None and self._options.self_check:
            return [
                "self-check: not made: no test asked the model, or the process that did has died"
            ]
        return self_check_lines(found)
