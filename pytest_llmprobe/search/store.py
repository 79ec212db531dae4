"""Answers by configuration and row: kept in memory, and in a folder from which a search resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pytest_llmprobe.case import Prompt, RawPrompt
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
    if isinstance(prompt, RawPrompt):
        said: Any = {"text": prompt.text, "ids": list(prompt.ids)}
    else:
        said = prompt if isinstance(prompt, str) else [dict(message) for message in prompt]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
    return configuration.key, row_id, digest


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
        self._path = None if folder is None else folder / FILE
        self._model = {name: model.get(name) for name in IDENTITY}
        if self._path is not None:
            self._open(self._path)

    def __contains__(self, key: Key) -> bool:
        return key in self._answers

    def __getitem__(self, key: Key) -> Answer:
        return self._answers[key]

    def add(self, answers: Iterable[tuple[Key, Answer]]) -> None:
        """Keep answers; they are in the file when this returns."""
        new = list(answers)
        self._answers.update(new)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                for (configuration, row, prompt), answer in new:
                    line = {"configuration": json.loads(configuration), "row": row}
                    file.write(json.dumps(line | {"prompt": prompt} | vars(answer)) + "\n")

    def _open(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_text(json.dumps({"model": self._model}) + "\n", encoding="utf-8")
            whole = 0
            with path.open("rb") as file:
                for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
                    if not line.endswith(b"\n"):
                        break  # the line that an interrupted run was writing
                    self._read(line, number)
                    whole += len(line)
            with path.open("r+b") as file:
                file.truncate(whole)
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}; give another folder") from None

    def _read(self, line: bytes, number: int) -> None:
        assert self._path is not None
        try:
            entry = json.loads(line)
            if number == 1:
                self._check_model(entry["model"])
                return
            configuration = json.dumps(entry["configuration"], sort_keys=True)
            answer = Answer(entry["text"], entry["generated_tokens"], entry["finish_reason"])
            texts = (entry["row"], entry["prompt"], answer.text, answer.finish_reason)
            if not all(isinstance(text, str) for text in texts):
                raise TypeError
            if not isinstance(answer.generated_tokens, int):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise SettingsError(
                f"{self._path} line {number} is no recorded answer; give another folder"
            ) from None
        self._answers[configuration, entry["row"], entry["prompt"]] = answer

    def _check_model(self, model: object) -> None:
        if not isinstance(model, dict):
            raise TypeError
        for name, value in self._model.items():
            if model.get(name) != value:
                raise SettingsError(
                    f"{self._path} holds answers of another model: {name} is {model.get(name)!r} "
                    f"there and {value!r} here; give another folder"
                )
