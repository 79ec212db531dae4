"""What is searched on: rows, prompts, a scorer and an engine; answers shared by all who ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from pytest_llmprobe.case import Prompt, prompt_text
from pytest_llmprobe.engine.completion_file import COMPLETIONS
from pytest_llmprobe.engine.completion_store import CompletionStore, request_like
from pytest_llmprobe.errors import RequestError, SettingsError
from pytest_llmprobe.generation import GenerateConfig, Request
from pytest_llmprobe.search.rows import (
    Data,
    Prompter,
    SearchRow,
    check_columns,
    make_prompts,
    read_rows,
)
from pytest_llmprobe.search.scorers import Scorer, checked_scores
from pytest_llmprobe.search.space import (
    Configuration,
    Parameters,
    Space,
    configuration,
    configurations,
)
from pytest_llmprobe.search.texts import Texts
from pytest_llmprobe.suite import seed_of

if TYPE_CHECKING:
    from pytest_llmprobe.engine.engine import Engine
    from pytest_llmprobe.engine.meter import OnProgress

CALL = 512
"""Requests of one call of the engine, which encodes them all before the first batch."""


class Answer(NamedTuple):
    """One row's answer under one configuration.

    Args:
        text: Without special tokens, cut before a stop string.
        generated_tokens: How many, the end-of-sequence token included; 0 if nobody knows.
    """

    text: str
    generated_tokens: int


class _Wanted(NamedTuple):
    """An answer that is not there yet."""

    key: str
    request: Request
    row: str


class SearchTask:
    """A model, data and a scorer; every answer is generated once.

    Args:
        engine: What generates: an engine, or a model that is in memory, with its ``tokenizer``.
        data: A JSON-lines file, or rows: dictionaries, a ``datasets`` data set, or cases. A row's
            ``id`` seeds its sampling (a hash of the row if there is none); rows with an equal
            ``group`` stay on one side of a split and count as one cluster in intervals.
        prompt: A template such as ``"Question: {question} Answer:"``, or a function of the row that
            gives a string or chat messages; one that takes a ``tokenizer`` is given the model's.
        score: A function of rows and answers that gives a number for each row, or one for all.
        input_columns: What a prompt function gets to see of a row; everything if left out.
        evaluation_columns: What the scorer gets to see; everything if left out.
        max_new_tokens: Of an answer, where the configuration says nothing else.
        stop: Strings that end an answer, likewise.
        folder: Every answer is recorded there when its batch is done, and those of the same model
            that are there are not generated again.
        on_progress: Told how many of the answers that were asked for are there.
        tokenizer: Of a model in memory.
        encode: Arguments of the tokenizer for each prompt, such as ``truncation=True,
            max_length=512``; the prompts are then texts, without a chat template.
        decode: Arguments of the tokenizer's ``decode`` for each answer.
        postprocess: Makes of an answer's text the one that is scored, such as ``str.strip``.
        after_batch: Functions that are called, without arguments, after each generated batch.
        greater_is_better: Whether the best score is the largest one.

    Raises:
        CasesError: The data cannot be read, a column is missing, or a prompt cannot be made.
        SettingsError: The folder cannot be written.
        ReportError: Its file of answers is something else.
    """

    def __init__(
        self,
        engine: Engine | Any,
        data: Data,
        prompt: Prompter = "{prompt}",
        score: Scorer | None = None,
        *,
        input_columns: Sequence[str] = (),
        evaluation_columns: Sequence[str] = (),
        max_new_tokens: int = 64,
        stop: Sequence[str] = (),
        folder: str | Path | None = None,
        on_progress: OnProgress | None = None,
        tokenizer: Any = None,
        encode: Mapping[str, Any] | None = None,
        decode: Mapping[str, Any] | None = None,
        postprocess: Callable[[str], str] | None = None,
        after_batch: Sequence[Callable[[], object]] = (),
        greater_is_better: bool = True,
    ) -> None:
        if score is None:
            raise SettingsError("a search needs score=..., such as ExactMatch('answer')")
        self.engine, self.scorer = _engine(engine, tokenizer), score
        self.texts = Texts(self.engine, encode, decode, postprocess)
        self.greater_is_better = greater_is_better
        self.base = GenerateConfig.of(max_new_tokens=max_new_tokens, stop=stop)
        self.rows = read_rows(data)
        self.columns = tuple(evaluation_columns or getattr(score, "columns", ()))
        self._hidden = bool(evaluation_columns)
        self._prompter, self._inputs = self.texts.prompter(prompt), tuple(input_columns)
        self._prompts: dict[str, Prompt] = {}
        self.prompts(self.rows)
        self._answers: dict[str, Answer] = {}
        if folder is not None:
            self.engine = recording(self.engine, Path(folder) / COMPLETIONS)
        if after_batch:
            self.engine = copy(self.engine)
            self.engine.after_batch = tuple(after_batch)
        self._on_progress = on_progress

    def __repr__(self) -> str:
        return f"SearchTask({len(self.rows)} rows)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a search task holds a loaded model, which is not copied to other processes: "
            "use n_jobs=1"
        )

    def prompts(self, rows: Sequence[SearchRow]) -> list[Prompt]:
        """The prompt of each row; checks the columns, too.

        Raises:
            CasesError: A column is missing, or a prompt cannot be made.
        """
        check_columns(rows, self.columns, "the scorer")
        made = make_prompts(rows, self._prompter, self._inputs)
        return self.texts.prompts(made, [row["id"] for row in rows])

    def configurations(self, space: Space) -> list[Configuration]:
        """The configurations of a space, checked."""
        return configurations(space, self.base)

    def configuration(self, parameters: Parameters) -> Configuration:
        """One configuration, checked."""
        return configuration(parameters, self.base)

    def prepare(self, space: Space, rows: Sequence[SearchRow] | None = None) -> None:
        """Generate what a search will ask for in one go: each prompt is computed once for all.

        The space is as for ``search``, or scikit-learn's ParameterGrid or ParameterSampler.
        """
        self.answers(self.configurations(space), self.rows if rows is None else rows)

    def answers(
        self, asked: Sequence[Configuration], rows: Sequence[SearchRow]
    ) -> list[list[Answer]]:
        """For each configuration the answer of each row.

        Raises:
            RequestError: A row cannot be answered; names it.
        """
        prompts = self.prompts(rows)
        requests = [
            [
                Request(prompt, one.config, seed_of(one.seed, row["id"]))
                for row, prompt in zip(rows, prompts, strict=True)
            ]
            for one in asked
        ]
        keys = [list(map(request_like, its)) for its in requests]
        wanted = {
            key: _Wanted(key, request, row["id"])
            for its in zip(keys, requests, strict=True)
            for key, request, row in zip(*its, rows, strict=True)
            if key not in self._answers
        }
        self._generate(sorted(wanted.values(), key=lambda one: prompt_text(one.request.prompt)))
        return [[self._answers[key] for key in its] for its in keys]

    def _generate(self, wanted: Sequence[_Wanted]) -> None:
        """Rows of one prompt, and prompts that begin alike, are neighbours and share a call."""
        for start in range(0, len(wanted), CALL):
            some = wanted[start : start + CALL]
            told = self._told(start, len(wanted))
            outcomes = self.engine.attempt([one.request for one in some], told)
            refused = []
            for one, out in zip(some, outcomes, strict=True):
                if isinstance(out, RequestError):
                    refused.append(type(out)(f"row {one.row}: {out}"))
                else:
                    text = self.texts.answer(out, one.request.config.stop)
                    self._answers[one.key] = Answer(text, out.usage.generated_tokens or 0)
            if refused:
                raise refused[0]

    def _told(self, before: int, total: int) -> OnProgress | None:
        tell = self._on_progress
        if tell is None:
            return None
        return lambda call: tell(replace(call, done=before + call.done, total=total))

    def judge(self, rows: Sequence[SearchRow], answers: Sequence[Answer]) -> Any:
        """The scorer's word on the answers: a list of floats, one a row, or one float."""
        texts = [answer.text for answer in answers]
        if self._hidden:
            rows = [{name: row[name] for name in ("id", *self.columns)} for row in rows]
        return checked_scores(self.scorer, rows, texts)

    def mean(self, rows: Sequence[SearchRow] | None = None, **parameters: Any) -> float:
        """The mean score with these parameters, as the objective of an Optuna study needs it."""
        rows = self.rows if rows is None else rows
        (answers,) = self.answers([self.configuration(parameters)], rows)
        scores = self.judge(rows, answers)
        return scores if isinstance(scores, float) else sum(scores) / len(scores)


def _engine(given: Any, tokenizer: Any) -> Engine:
    """An engine as it is, or one of a model.

    Raises:
        ModelError: It is no model.
        SettingsError: An engine has its own tokenizer.
    """
    from pytest_llmprobe.engine.engine import Engine

    if not hasattr(given, "attempt"):  # a model, not what answers requests
        return Engine(given, tokenizer=tokenizer)
    if tokenizer is not None:
        raise SettingsError("tokenizer: an engine has its model's; give the model itself, or none")
    engine: Engine = given
    return engine


def recording(engine: Engine, path: Path) -> Engine:
    """A copy of an engine that keeps its answers in a file, and looks there first."""
    recorded = copy(engine)
    recorded.store = CompletionStore.going_on(path, engine.backend.info, engine.batch_size)
    return recorded
