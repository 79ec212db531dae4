"""Answers by configuration and row: kept in memory, and in a folder from which a search resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pytest_llmprobe.case import Prompt, prompt_json
from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.experiments.source_rows import MAX_LINE
from pytest_llmprobe.search.space import Configuration

FILE = "answers.jsonl"

IDENTITY = ("source", "revision", "fingerprint", "dtype", "tokenizer_hash", "chat_template_hash")
"""What of a model's info makes its answers its own."""


@dataclass(frozen=True)
class Answer:
    """One row's answer under one configuration.

    Args:
        text: Without special tokens, cut before a stop string.
        generated_tokens: How many, the end-of-sequence token included.
        finish_reason: ``stop``, ``length`` or ``stop_string``.
    """

    text: str
    generated_tokens: int
    finish_reason: str


Key: TypeAlias = tuple[str, str, str]


def key_of(configuration: Configuration, row_id: str, prompt: Prompt) -> Key:
    """Configuration, row and prompt, as text."""
    digest = hashlib.sha256(json.dumps(prompt_json(prompt), sort_keys=True).encode()).hexdigest()[
        :16
    ]
    return configuration.key, row_id, digest


class RecordFile:
    """A file of JSON lines that grows while a search runs, and may have been cut off at any place.

    Args:
        path: The file; its first line names the model.
        model: What the engine's backend says about its model.
        read: Takes a line that is there; an error of its own says that it is none of ours.

    Raises:
        SettingsError: The file holds answers of another model, or something else.
    """

    def __init__(
        self, path: Path, model: Mapping[str, Any], read: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self._path, self._read_entry = path, read
        self._model = {name: model.get(name) for name in IDENTITY}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_text(json.dumps({"model": self._model}) + "\n", encoding="utf-8")
            self._read_whole_lines()
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}; give another folder") from None

    def append(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Add lines; they are in the file when this returns."""
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)

    def _read_whole_lines(self) -> None:
        whole = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
                if not line.endswith(b"\n"):
                    break  # the line that an interrupted run was writing
                self._read(line, number)
                whole += len(line)
        with self._path.open("r+b") as file:
            file.truncate(whole)

    def _read(self, line: bytes, number: int) -> None:
        try:
            entry = json.loads(line)
            if number == 1:
                self._check_model(entry["model"])
            else:
                self._read_entry(entry)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise SettingsError(
                f"{self._path} line {number} is no recorded answer; give another folder"
            ) from None

    def _check_model(self, model: object) -> None:
        if not isinstance(model, dict):
            raise TypeError
        for name, value in self._model.items():
            if model.get(name) != value:
                raise SettingsError(
                    f"{self._path} holds answers of another model: {name} is {model.get(name)!r} "
                    f"there and {value!r} here; give another folder"
                )


class AnswerStore:
    """All answers so far; with a folder each is also a JSON line in it, written at once.

    Args:
        folder: Where ``answers.jsonl`` is or will be, or None to keep answers in memory only.
        model: What the engine's backend says about its model.

    Raises:
        SettingsError: The folder holds answers of another model, or something else.
    """

    def __init__(self, folder: Path | None, model: Mapping[str, Any]) -> None:
        self._answers: dict[Key, Answer] = {}
        self._file = None if folder is None else RecordFile(folder / FILE, model, self._read)

    def __contains__(self, key: Key) -> bool:
        return key in self._answers

    def __getitem__(self, key: Key) -> Answer:
        return self._answers[key]

    def add(self, answers: Iterable[tuple[Key, Answer]]) -> None:
        """Keep answers; they are in the file when this returns."""
        new = list(answers)
        self._answers.update(new)
        if self._file is not None:
            self._file.append(
                {"configuration": json.loads(how), "row": row, "prompt": prompt} | vars(answer)
                for (how, row, prompt), answer in new
            )

    def _read(self, entry: Mapping[str, Any]) -> None:
        configuration = json.dumps(entry["configuration"], sort_keys=True)
        answer = Answer(entry["text"], entry["generated_tokens"], entry["finish_reason"])
        texts = (entry["row"], entry["prompt"], answer.text, answer.finish_reason)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
        if not isinstance(answer.generated_tokens, int):
            raise TypeError
        self._answers[configuration, entry["row"], entry["prompt"]] = answer
