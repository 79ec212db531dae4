"""The file of a run's answers: its lines, and how they are found again.

One file of JSON lines a run, which several processes append to: what the run is, which model each
process asked, then an answer a line under two keys. The prompts are in the keys only, as hashes. Of
an answer that came before its batch ended a second line has the share of the batch's time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from pytest_llmprobe import errors
from pytest_llmprobe.errors import ReportError, RequestError
from pytest_llmprobe.generation import LONGEST_REASON, Completion, Timings, Usage

COMPLETIONS = "completions.jsonl"
KEY_CHARACTERS = 32
KEY, LIKE, TIME = b'{"key": "', b'", "like": "', b'{"time_of": "'

Outcome: TypeAlias = Completion | RequestError
Outcomes: TypeAlias = Mapping[int, Outcome]
NONE: Outcomes = MappingProxyType({})
ERRORS: dict[str, type[RequestError]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RequestError)
}


def begin(path: Path, run: Mapping[str, Any]) -> None:
    """Start a file of answers, with what is known of the run; one that is there is set aside.

    Another run may still write to that one, and a killed run's answers may be wanted yet.
    """
    if path.exists():
        path.replace(path.with_stem(f"{path.stem}-before"))
    path.write_bytes(line_of({"run": dict(run)}))


def line_of(data: Mapping[str, Any]) -> bytes:
    """A line, and the end of one that a killed process had not finished."""
    return b"\n" + json.dumps(data, allow_nan=False).encode() + b"\n"


def answer_line(key: str, like: str, outcome: Outcome) -> dict[str, Any]:
    """An answer's line; ``key`` is of the request and the model, ``like`` of the request alone."""
    keys: dict[str, Any] = {"key": key, "like": like}
    if isinstance(outcome, Completion):
        nested = {"usage": vars(outcome.usage), "timings": vars(outcome.timings)}
        return keys | {"completion": vars(outcome) | nested}
    return keys | {"error": type(outcome).__name__, "message": str(outcome)}


def told_before(early: Outcome | None, outcome: Outcome) -> bool:
    """Whether an answer was kept before its batch ended, but for its share of the time."""
    if not (isinstance(early, Completion) and isinstance(outcome, Completion)):
        return False
    share = {name: getattr(outcome.timings, name) for name in ("generation_s", "wall_s")}
    return replace(early, timings=replace(early.timings, **share)) == outcome


def time_line(key: str, timings: Timings) -> dict[str, Any]:
    """What the end of a batch tells of an answer under ``key`` that has a line already."""
    return {"time_of": key, "generation_s": timings.generation_s, "wall_s": timings.wall_s}


class CompletionFile:
    """What is in a file of answers, by key; a line is read when it is asked for.

    Attributes:
        models: What each process said of the model that it asked, in order.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.models: list[dict[str, Any]] = []
        self._by_key: dict[bytes, int] = {}
        self._by_like: dict[bytes, int] = {}
        self._times: dict[bytes, int] = {}
        like = len(KEY) + KEY_CHARACTERS + len(LIKE)
        with path.open("rb") as file:
            at = 0
            for line in file:
                if line.startswith(KEY) and line.endswith(b"\n"):  # else a kill cut it off
                    key = line[len(KEY) : len(KEY) + KEY_CHARACTERS]
                    self._by_key[key] = at
                    self._times.pop(key, None)  # of an earlier answer
                    self._by_like[line[like : like + KEY_CHARACTERS]] = at
                elif line.startswith(TIME) and line.endswith(b"\n"):
                    self._times[line[len(TIME) : len(TIME) + KEY_CHARACTERS]] = at
                elif line.startswith(b'{"identity": ') and line.endswith(b"\n"):
                    self.models += [model] if _is_model(model := _parsed(line)) else []
                at += len(line)

    def find(self, key: str) -> Outcome | None:
        """The last outcome under a key of request and model."""
        outcome = self._outcome_at(self._by_key.get(key.encode()))
        at = self._times.get(key.encode())
        if at is None or not isinstance(outcome, Completion):
            return outcome
        data = self._line_at(at)
        try:
            wall = data["wall_s"]
            share: dict[str, Any] = {
                "generation_s": _seconds(data["generation_s"]),
                "wall_s": None if wall is None else _seconds(wall),
            }
        except (KeyError, ValueError):  # no line of ours: what was known before it
            return outcome
        return replace(outcome, timings=replace(outcome.timings, **share))

    def find_like(self, like: str) -> Outcome | None:
        """The last outcome of a request, whichever model it is of."""
        return self._outcome_at(self._by_like.get(like.encode()))

    def _line_at(self, at: int) -> dict[str, Any]:
        with self.path.open("rb") as file:
            file.seek(at)
            return _parsed(file.readline())

    def _outcome_at(self, at: int | None) -> Outcome | None:
        if at is None:
            return None
        data = self._line_at(at)
        try:
            if "error" in data:
                return ERRORS[data["error"]](str(data["message"]))
            return _completion(data["completion"])
        except (KeyError, TypeError, ValueError):  # no line of ours: as if it were not there
            return None


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


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        data = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _is_model(data: Mapping[str, Any]) -> bool:
    """Whether a line says of a model what ``CompletionStore`` writes."""
    info = data.get("info")
    return (
        isinstance(data.get("identity"), str)
        and isinstance(data.get("of"), dict)
        and isinstance(info, dict)
        and isinstance(info.get("tokenizer_hash"), str | None)
    )


def _completion(data: Mapping[str, Any]) -> Completion:
    """The inverse of ``asdict``, each field checked: the file may be anybody's.

    Raises:
        KeyError, TypeError, ValueError: A field is missing, of another type, out of range.
    """
    usage = Usage(*(_known(data["usage"][field.name]) for field in fields(Usage)))
    seconds = _seconds(data["timings"]["generation_s"])
    known: dict[str, Any] = {
        "text": _text(data["text"]),
        "token_ids": tuple(map(_count, data["token_ids"])),
        "finish_reason": _text(data["finish_reason"]),
        "prompt_hash": _text(data["prompt_hash"]),
        "redone": data["redone"] is True,
        "steered": tuple(map(_text, data["steered"])),
        "steered_layers": _count(data["steered_layers"]),
        "thought": None if data.get("thought") is None else _text(data["thought"]),
        "log_likelihood": _logarithm(data.get("log_likelihood")),
        "most_likely": data.get("most_likely") is True,
    }
    if not 0 < len(known["finish_reason"]) <= LONGEST_REASON:
        raise ValueError("no reason of an end")
    waits = (data["timings"].get(name) for name in ("latency_s", "first_token_s", "wall_s"))
    latencies = (None if wait is None else _seconds(wait) for wait in waits)
    timings = Timings(seconds, _count(data["timings"]["batch_size"]), *latencies)
    return replace(Completion(usage=usage, timings=timings, **known), recorded=True)


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise ValueError("no time")
    return float(value)


def _logarithm(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or not -sys.float_info.max <= value <= 0:
        raise ValueError("no logarithm of a probability")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _known(value: object) -> int | None:
    return None if value is None else _count(value)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise TypeError("no count")
    return value
