"""Where this run's files are, the same in every process, and the answers that it keeps there."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmprobe.engine.completion_file import COMPLETIONS, begin
from pytest_llmprobe.engine.completion_store import CompletionStore
from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.plugin.distribution import is_first, plan_of, scratch_folder, started_at
from pytest_llmprobe.plugin.earlier_run import guessed_from
from pytest_llmprobe.plugin.options import Options, options_of
from pytest_llmprobe.plugin.self_check_once import check_once
from pytest_llmprobe.report.environment import commit
from pytest_llmprobe.report.files import RunFiles, open_run, write_atomically
from pytest_llmprobe.report.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from pytest_llmprobe.engine import Engine

HEADER = pytest.StashKey[dict[str, Any]]()
FILES = pytest.StashKey[RunFiles]()
STORE = pytest.StashKey[CompletionStore]()
CLAIM_SECONDS = 60


def header(config: pytest.Config) -> dict[str, Any]:
    """What is known of the run before its first result."""
    if HEADER not in config.stash:
        options = options_of(config)
        start = _start(config).isoformat(timespec="seconds").replace("+00:00", "Z")
        config.stash[HEADER] = {
            "schema_version": SCHEMA_VERSION,
            "model": options.model,
            "timestamp": start,
            "config": options.as_dict(),
            "commit": commit(config.rootpath),
        }
    return config.stash[HEADER]


def _start(config: pytest.Config) -> datetime:
    return datetime.fromtimestamp(started_at(config), timezone.utc)


def run_files(config: pytest.Config) -> RunFiles:
    """The run's files; the first process that asks makes their folder."""
    if FILES not in config.stash:
        config.stash[FILES] = _claimed(config)
    return config.stash[FILES]


def _claimed(config: pytest.Config) -> RunFiles:
    """One process opens the run, the others wait to be told."""
    told = scratch_folder(config) / "run"
    if not is_first(config, "run"):
        for _ in range(CLAIM_SECONDS * 100):
            if told.exists():
                return RunFiles(Path(told.read_text(encoding="utf-8")))
            time.sleep(0.01)
        raise ReportError(f"another process began the run and never said where: {told}")
    files = _opened(config, options_of(config))
    write_atomically(told, str(files.report))
    return files


def _opened(config: pytest.Config, options: Options) -> RunFiles:
    """The run that goes on, or a new one."""
    if options.resume is not None:
        files = RunFiles(options.report or options.resume / "report.json")
        files.report.parent.mkdir(parents=True, exist_ok=True)
        _set_aside(files.records)
        return files
    files = open_run(options.storage, options.model, options.report, _start(config))
    if options.replay is None:
        begin(files.report.with_name(COMPLETIONS), header(config))
    return files


def _set_aside(records: Path) -> None:
    """Keep what the interrupted run has recorded; its cases are recorded again."""
    number = 1
    while (older := records.with_name(f"{records.stem}-{number}.jsonl")).exists():
        number += 1
    if records.exists():
        records.replace(older)


def recorded(config: pytest.Config, engine: Engine) -> Engine:
    """The engine, which keeps its answers beside the run's records from now on.

    Where the run goes on or is replayed it looks for them first. A session without probe cases
    keeps nothing. Before its first case the model is checked, if the user asked for that.
    """
    options = options_of(config)
    if engine.store is not None or not plan_of(config):
        return engine
    check_once(config, engine)
    if STORE not in config.stash:
        if options.replay is not None:
            store = replayed(options)
        else:
            folder = options.resume or run_files(config).report.parent
            info, resumed = engine.backend.info, options.resume is not None
            earlier = None
            if options.drafts and not resumed:
                compared = options.compare[1] if options.compare else None
                earlier = guessed_from(options.model, compared, options.storage, folder)
            file = folder / COMPLETIONS
            store = CompletionStore(file, info, options.batch_size, resumed, earlier)
        config.stash[STORE] = store
    engine.store = config.stash[STORE]
    return engine


def replayed(options: Options) -> CompletionStore:
    """The answers that a replay scores again."""
    assert options.replay is not None
    return CompletionStore(options.replay / COMPLETIONS, None)


def model_changes(config: pytest.Config) -> list[str]:
    """What differs between this process's model and the one whose answers a run goes on with."""
    return config.stash[STORE].changes if STORE in config.stash else []
