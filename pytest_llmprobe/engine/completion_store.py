"""Answers on disk: written as soon as they are there, found again by all that could change them.

One file of JSON lines a run, which several processes append to: what the run is, which model each
process asked, then an answer a line under its key. The prompts are in the keys only, as hashes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias, get_args

from pytest_llmprobe import errors
from pytest_llmprobe.case import prompt_json
from pytest_llmprobe.errors import ReportError, RequestError
from pytest_llmprobe.generation import Completion, FinishReason, Request, Timings, Usage

COMPLETIONS = "completions.jsonl"
PACKAGES = ("pytest-llmprobe", "tokenizers", "torch", "transformers")
KEY_CHARACTERS = 32
SYNC_SECONDS = 1.0
"""A power failure takes the answers of this time at most; a kill takes none."""

BESIDE = ("accelerators", "architecture", "capabilities", "parameters", "served_model")
NAMES = ("revision", "source")
"""Where the weights come from does not matter once they are known by their fingerprint."""

Outcome: TypeAlias = Completion | RequestError
ERRORS: dict[str, type[RequestError]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RequestError)
}


def identity(info: Mapping[str, Any], batch_size: int | None) -> dict[str, Any]:
    """What an answer depends on beside its request: model, tokenizer, numbers, packages.

    Args:
        info: What the backend says about itself.
        batch_size: Rows of a batch as the user asked; it turns answers in fewer than 32 bits.
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


def request_key(asked: str, request: Request) -> str:
    """32 hex digits for a request to the model of an identity (its hash)."""
    steer = request.steer if request.steer is not None and request.steer.delta != 0 else None
    config = request.config
    parts = [
        asked,
        prompt_json(request.prompt),
        asdict(config),
        request.seed if config.temperature > 0 else None,
        None if steer is None else asdict(steer),
    ]
    return _hash(parts)


def _hash(data: object) -> str:
    # ASCII only: a lone surrogate has no UTF-8.
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:KEY_CHARACTERS]


def begin(path: Path, run: Mapping[str, Any]) -> None:
    """Start a file of answers anew, with what is known of the run."""
    path.write_bytes(_line({"run": dict(run)}))


def _line(data: Mapping[str, Any]) -> bytes:
    # The newline in front ends a line that a killed process had not finished.
    return b"\n" + json.dumps(data, allow_nan=False).encode() + b"\n"


class CompletionStore:
    """The answers of one run, for one process.

    Args:
        path: The file, as ``begin`` made it.
        info: What the backend says about itself; None to replay: then the model is the one that
            the file was last written with, and a request without an answer is an error.
        batch_size: Rows of a batch as the user asked.
        look_up: Whether to look for answers that are there already.
    """

    def __init__(
        self,
        path: Path,
        info: Mapping[str, Any] | None,
        batch_size: int | None = None,
        look_up: bool = False,
    ) -> None:
        self.path, self.replays = path, info is None
        self._index: dict[bytes, int] = {}
        self._models: list[dict[str, Any]] = []
        if look_up or self.replays:
            self._read_index()
        if info is None:
            self.info = _info_of(self._models[-1] if self._models else {}, path)
            self._model = str(self._models[-1]["identity"])
        else:
            self.info = dict(info)
            self._described = identity(info, batch_size)
            self._model = _hash(self._described)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            self._synced = time.monotonic()
            self._append([{"identity": self._model, "of": self._described, "info": self.info}])

    def _read_index(self) -> None:
        """Where each key's last line begins; lines without an end were cut by a kill."""
        start = len(b'{"key": "')
        with self.path.open("rb") as file:
            at = 0
            for line in file:
                if line.startswith(b'{"key": "') and line.endswith(b"\n"):
                    self._index[line[start : start + KEY_CHARACTERS]] = at
                elif line.startswith(b'{"identity": ') and line.endswith(b"\n"):
                    self._models.append(_parsed(line))
                at += len(line)

    @property
    def changes(self) -> list[str]:
        """What differs between this model and the one that answered last, by name."""
        if self.replays or not self._models:
            return []
        before, now = dict(_flat(self._models[-1].get("of", {}))), dict(_flat(self._described))
        return [
            f"{name} {before.get(name)} -> {now.get(name)}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]

    def find(self, request: Request) -> Outcome | None:
        """The answer that is there, marked as recorded; None if there is none.

        In a replay an error that was recorded is the answer, and so is one if there is nothing.
        """
        if not self._index and not self.replays:
            return None
        at = self._index.get(request_key(self._model, request).encode())
        outcome = None if at is None else self._outcome_at(at)
        if not self.replays:
            return outcome if isinstance(outcome, Completion) else None
        if outcome is None:
            return RequestError(
                f"{self.path.parent} holds no answer to this request: replay with the options "
                "that it was made with, or run the model"
            )
        return outcome

    def _outcome_at(self, at: int) -> Outcome | None:
        with self.path.open("rb") as file:
            file.seek(at)
            data = _parsed(file.readline())
        try:
            if "error" in data:
                return ERRORS[data["error"]](str(data["message"]))
            return _completion(data["completion"])
        except (KeyError, TypeError, ValueError):  # no line of ours: as if it were not there
            return None

    def keep(self, outcomes: Iterable[tuple[Request, Outcome]]) -> None:
        """Write answers, and hand them to the operating system at once."""
        if not self.replays:
            self._append([self._kept(request, outcome) for request, outcome in outcomes])

    def _kept(self, request: Request, outcome: Outcome) -> dict[str, Any]:
        key: dict[str, Any] = {"key": request_key(self._model, request)}
        if isinstance(outcome, Completion):
            return key | {"completion": asdict(outcome)}
        return key | {"error": type(outcome).__name__, "message": str(outcome)}

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        data = b"".join(map(_line, lines))
        while data:  # one call, so that the lines of two processes do not mix
            data = data[os.write(self._file, data) :]
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._file)
            self._synced = time.monotonic()


def run_of(path: Path) -> dict[str, Any]:
    """What ``begin`` said about the run of a file.

    Raises:
        ReportError: It cannot be read, or is no file of answers.
    """
    try:
        with path.open("rb") as file:
            first = next((line for line in file if line.strip()), b"")
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}") from None
    run = _parsed(first).get("run")
    if not isinstance(run, dict):
        raise ReportError(f"{path} is no file of answers: it does not say what run it is of")
    return run


def _info_of(model: Mapping[str, Any], path: Path) -> dict[str, Any]:
    if not isinstance(info := model.get("info"), dict):
        raise ReportError(f"{path} holds no answers: the run ended before its model was loaded")
    return info


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _completion(data: Mapping[str, Any]) -> Completion:
    """The inverse of ``asdict``, each field checked: the file may be anybody's.

    Raises:
        KeyError: A field is missing.
        TypeError: A field is of another type.
        ValueError: A field is out of range.
    """
    usage = Usage(*(_count(data["usage"][field.name]) for field in fields(Usage)))
    seconds = float(data["timings"]["generation_s"])
    known = {
        "text": _text(data["text"]),
        "token_ids": tuple(map(_count, data["token_ids"])),
        "finish_reason": data["finish_reason"],
        "prompt_hash": _text(data["prompt_hash"]),
        "redone": data["redone"] is True,
        "steered": tuple(map(_text, data["steered"])),
        "steered_layers": _count(data["steered_layers"]),
    }
    if known["finish_reason"] not in get_args(FinishReason) or not 0 <= seconds < math.inf:
        raise ValueError("no completion of ours")
    waits = (data["timings"].get(name) for name in ("latency_s", "first_token_s"))
    latencies = (None if wait is None else abs(float(wait)) for wait in waits)
    timings = Timings(seconds, _count(data["timings"]["batch_size"]), *latencies)
    return replace(Completion(usage=usage, timings=timings, **known), recorded=True)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("no count")
    return value


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield prefix + name, value
