"""Answers on disk: written as soon as they are there, found again by all that could change them."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pytest_llmprobe.case import prompt_json
from pytest_llmprobe.engine.completion_file import (
    KEY_CHARACTERS,
    CompletionFile,
    Outcome,
    answer_line,
    begin,
    line_of,
    run_of,
    time_line,
)
from pytest_llmprobe.errors import ReportError, RequestError, SettingsError, StorageError
from pytest_llmprobe.generation import Completion, Request

PACKAGES = ("pytest-llmprobe", "tokenizers", "torch", "transformers")
SYNC_SECONDS = 1.0
"""A power failure takes the answers of this time at most; a kill takes none."""

LEARNED = ("adapted", "finish_reasons", "served_model")
"""What a server is known for once it has answered."""

BESIDE = ("accelerators", "architecture", "capabilities", "files", "parameters", *LEARNED)
NAMES = ("revision", "source")
"""Where the weights come from does not matter once they are known by their fingerprint."""


def identity(info: Mapping[str, Any], batch_size: int | None) -> dict[str, Any]:
    """What an answer depends on beside its request: model, tokenizer, numbers, packages.

    In fewer than 32 bits the batch size turns answers, too: it is the one that the user asked for.
    """
    left_out = {*BESIDE, *(NAMES if info.get("fingerprint") else ())}
    found = {key: value for key, value in info.items() if key not in left_out}
    if isinstance(device := found.get("device"), str):
        found["device"] = device.partition(":")[0]
    found["accelerators"] = sorted(set(info.get("accelerators", ())))
    if info.get("dtype") != "float32":
        found["batch_size"] = batch_size
    return found | {"packages": {name: _version(name) for name in PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def request_like(request: Request) -> str:
    """32 hex digits for all of a request that could change its answer."""
    steer = request.steer if request.steer is not None and request.steer.delta != 0 else None
    config = request.config
    if request.continuation is not None:  # nothing is generated
        return _hash([prompt_json(request.prompt), request.continuation])
    return _hash(
        [
            prompt_json(request.prompt),
            vars(config),
            request.seed if config.temperature > 0 else None,
            None if steer is None else asdict(steer),
        ]
    )


def request_key(asked: str, like: str) -> str:
    """32 hex digits for a request to the model of an identity (its hash)."""
    return _hash([asked, like])


def _hash(data: object) -> str:
    # ASCII only: a lone surrogate has no UTF-8.
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:KEY_CHARACTERS]


class CompletionStore:
    """The answers of one run, for one process.

    Args:
        path: The file, as ``begin`` made it.
        info: What the backend says about itself; None to replay: then the model is the one that
            the file was last written with, and a request without an answer is an error.
        batch_size: Rows of a batch as the user asked.
        look_up: Whether to look for answers that are there already.
        earlier: Another run's file: what it answered is a guess of what will be answered now.
    """

    def __init__(
        self,
        path: Path,
        info: Mapping[str, Any] | None,
        batch_size: int | None = None,
        look_up: bool = False,
        earlier: Path | None = None,
    ) -> None:
        self.path, self.replays = path, info is None
        self._there = CompletionFile(path) if look_up or self.replays else None
        self._earlier = self._there if earlier is None else CompletionFile(earlier)
        if info is None:
            if (last := self._last_model()) is None:
                raise ReportError(
                    f"{path} holds no answers: the run ended before its model was loaded"
                )
            self.info, self._model = last["info"], last["identity"]
        else:
            self._described = identity(info, batch_size)
            self._model = _hash(self._described)
            self.info = self.completed(info)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            self._synced = time.monotonic()
            self._unsynced: OSError | None = None
            self.note(self.info)
        models = () if self._earlier is None else self._earlier.models
        tokenizers = {model["info"].get("tokenizer_hash") for model in models}
        self._same_tokens = tokenizers == {self.info.get("tokenizer_hash")}

    @classmethod
    def going_on(
        cls, path: Path, info: Mapping[str, Any], batch_size: int | None = None
    ) -> CompletionStore:
        """The store of a search: its file is gone on with, or begun where there is none.

        Warns if the file's last answers are another model's: those stay there unused.

        Raises:
            ReportError: The file is something else.
            SettingsError: Its folder cannot be written.
        """
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                begin(path, {"search": path.parent.name})
            run_of(path)
            store = cls(path, info, batch_size, look_up=True)
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}; give another folder") from None
        if store.changes:
            warnings.warn(
                f"{path} holds answers of another model, which are not used: "
                + ", ".join(store.changes),
                stacklevel=3,
            )
        return store

    def look_up(self) -> None:
        """Look for answers from now on, also those that have been written since."""
        self._there = CompletionFile(self.path)

    def _last_model(self) -> dict[str, Any] | None:
        return self._there.models[-1] if self._there and self._there.models else None

    @property
    def changes(self) -> list[str]:
        """What differs between this model and the one that answered last, by name."""
        last = self._last_model()
        if self.replays or last is None:
            return []
        before, now = dict(_flat(last["of"])), dict(_flat(self._described))
        return [
            f"{name} {before.get(name)} -> {now.get(name)}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]

    def note(self, info: Mapping[str, Any]) -> None:
        """Write what the model is, or what has become known of it since."""
        if not self.replays:
            self.info = self.completed(info)
            self._append([{"identity": self._model, "of": self._described, "info": self.info}])

    def completed(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """What a model says of itself, with what it said when it answered what is there."""
        found = dict(info)
        models = () if self._there is None else self._there.models
        for model in models:
            if model["identity"] == self._model:
                learned = {k: v for k, v in model["info"].items() if k in LEARNED and v}
                found = learned | {k: v for k, v in found.items() if v or k not in learned}
        return found

    def find(self, request: Request) -> Outcome | None:
        """The answer that is there, marked as recorded; None if there is none.

        In a replay an error that was recorded is the answer, and so is one if there is nothing.
        """
        if self._there is None:
            return None
        outcome = self._there.find(request_key(self._model, request_like(request)))
        if not self.replays:
            return outcome if isinstance(outcome, Completion) else None
        if outcome is None:
            return RequestError(
                f"{self.path.parent} holds no answer to this request: replay with the options "
                "that it was made with, or run the model"
            )
        return outcome

    def draft(self, request: Request) -> tuple[int, ...] | str | None:
        """What was answered to the same request before, by whatever model; None if nothing was.

        As token ids, which mean the same only to the same tokenizer; else as text.
        """
        outcome = None if self._earlier is None else self._earlier.find_like(request_like(request))
        if not isinstance(outcome, Completion):
            return None
        return outcome.token_ids if self._same_tokens else outcome.text

    def keep(self, outcomes: Iterable[tuple[Request, Outcome]]) -> None:
        """Write answers, and hand them to the operating system at once."""
        if self.replays:
            return
        likes = [(request_like(request), outcome) for request, outcome in outcomes]
        self._append(
            [answer_line(request_key(self._model, like), like, found) for like, found in likes]
        )

    def keep_times(self, outcomes: Iterable[tuple[Request, Outcome]]) -> None:
        """Write what has become known of the time of answers that are kept already."""
        found = [
            time_line(request_key(self._model, request_like(request)), outcome.timings)
            for request, outcome in outcomes
            if isinstance(outcome, Completion)
        ]
        if found and not self.replays:
            self._append(found)

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        data = b"".join(map(line_of, lines))
        try:
            while data:  # one call, so that the lines of two processes do not mix
                data = data[os.write(self._file, data) :]
            if self._unsynced is not None:
                raise self._unsynced
            self._sync()
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written: {error.strerror}") from None

    def _sync(self) -> None:
        """Now and then, in a thread: a slow disk may take longer than a server does to answer."""
        now = time.monotonic()
        if now - self._synced > SYNC_SECONDS:
            self._synced = float("inf")  # until this one is through
            threading.Thread(target=self._synchronise, name="llmprobe-sync", daemon=True).start()

    def _synchronise(self) -> None:
        try:
            os.fsync(self._file)
        except OSError as error:
            self._unsynced = error
        self._synced = time.monotonic()


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield prefix + name, value
