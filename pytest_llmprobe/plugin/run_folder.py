"""Where this run's files are, the same in every process, and the answers that it keeps there."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.engine.completion_file import COMPLETIONS, begin
from pytest_llmprobe.engine.completion_store import CompletionStore
from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.plugin.earlier_run import guessed_from
from pytest_llmprobe.plugin.ending import unwritten
from pytest_llmprobe.plugin.options import Options
from pytest_llmprobe.plugin.process import Process
from pytest_llmprobe.report.environment import commit
from pytest_llmprobe.report.files import RunFiles, open_run, write_atomically
from pytest_llmprobe.report.prompt_file import PROMPTS
from pytest_llmprobe.report.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from pytest_llmprobe.engine.backend import Backend

CLAIM_SECONDS = 60

JUDGED = "judge.jsonl"
"""What a judge answered, beside the model's answers."""


class RunFolder:
    """The run's files; the first process that asks makes their folder.

    Args:
        process: This one.
        options: What the user asked for.
        root: The project's folder, for its commit.
    """

    def __init__(self, process: Process, options: Options, root: Path) -> None:
        self._process, self._options, self._root = process, options, root
        self._store: CompletionStore | None = None
        self._written: list[CompletionStore] = []
        self._lost = 0

    @property
    def _start(self) -> datetime:
        return datetime.fromtimestamp(self._process.started, timezone.utc)

    @cached_property
    def header(self) -> dict[str, Any]:
        """What is known of the run before its first result."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self._options.model,
            "timestamp": self._start.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "config": self._options.as_dict() | {"workers": self._process.workers},
            "commit": commit(self._root),
        }

    @cached_property
    def files(self) -> RunFiles:
        """One process opens the run, the others wait to be told where.

        Raises:
            StorageError: It cannot be written.
        """
        try:
            return self._found()
        except OSError as error:
            raise unwritten(error) from None

    def _found(self) -> RunFiles:
        told = self._process.scratch / "run"
        if self._process.is_first("run"):
            files = self._opened()
            write_atomically(told, str(files.report))
            return files
        for _ in range(CLAIM_SECONDS * 100):
            if told.exists():
                return RunFiles(Path(told.read_text(encoding="utf-8")))
            time.sleep(0.01)
        raise ReportError(f"another process began the run and never said where: {told}")

    def _opened(self) -> RunFiles:
        """The run that goes on, or a new one."""
        options = self._options
        if options.resume is not None:
            files = RunFiles(options.report or options.resume / "report.json")
            files.report.parent.mkdir(parents=True, exist_ok=True)
            _set_aside(files.records)
            if options.judge is not None and not (options.resume / JUDGED).exists():
                begin(options.resume / JUDGED, self.header)
            return files
        files = open_run(options.storage, options.model, options.report, self._start)
        files.report.with_name(PROMPTS).unlink(missing_ok=True)  # of an older run with this path
        if options.replay is None:
            begin(files.report.with_name(COMPLETIONS), self.header)
        if options.judge is not None:
            begin(files.report.with_name(JUDGED), self.header)
        return files

    @property
    def prompts(self) -> Path:
        """Where whole prompts are kept."""
        return self.files.report.with_name(PROMPTS)

    @cached_property
    def replayed(self) -> CompletionStore:
        """The answers that a replay scores again, read once."""
        assert self._options.replay is not None
        return CompletionStore(self._options.replay / COMPLETIONS, None)

    def store(self, backend: Backend) -> CompletionStore:
        """The answers: those of the run that is replayed or goes on, and those of this one."""
        if self._store is None:
            self._store = self._opened_store(backend)
        return self._store

    def _opened_store(self, backend: Backend) -> CompletionStore:
        options = self._options
        if options.replay is not None:
            return self.replayed
        folder, resumed = options.resume or self.files.report.parent, options.resume is not None
        look_up = resumed or self._process.replaces  # what a dead worker received is there
        earlier = None
        if options.drafts and not resumed:
            compared = options.compare[1] if options.compare else None
            earlier = guessed_from(options.model, compared, options.storage, folder)
        path = folder / COMPLETIONS
        store = CompletionStore(path, backend.info, options.batch_size, look_up, earlier)
        self._written.append(store)
        return store

    def look_for_lost(self) -> None:
        """Find what workers that have died since were answered: this one may get their tests."""
        if self._process.is_worker and (lost := self._process.lost_workers) > self._lost:
            self._lost = lost
            for store in self._written:
                store.look_up()

    def judge_store(self, backend: Backend) -> CompletionStore:
        """The judge's answers: found again where a run goes on, beside those of the model."""
        options = self._options
        path = (options.resume or self.files.report.parent) / JUDGED
        look_up = options.resume is not None or self._process.replaces
        store = CompletionStore(path, backend.info, options.batch_size, look_up)
        self._written.append(store)
        return store

    @property
    def replayed_judge(self) -> CompletionStore | None:
        """What a judge said in the run that is scored again, if it had one."""
        replay = self._options.replay
        path = None if replay is None else replay / JUDGED
        return CompletionStore(path, None) if path is not None and path.exists() else None

    def model_changes(self) -> list[str]:
        """What differs between this model and the one whose answers a run goes on with."""
        return self._store.changes if self._store is not None else []


def _set_aside(records: Path) -> None:
    """Keep what the interrupted run has recorded; its cases are recorded again."""
    number = 1
    while (older := records.with_name(f"{records.stem}-{number}.jsonl")).exists():
        number += 1
    if records.exists():
        records.replace(older)
