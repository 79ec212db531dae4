"""A second model that judges answers: asked like the first, its answers kept and replayed alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmprobe.case import Prompt
from pytest_llmprobe.generation import Completion, GenerateConfig, Request
from pytest_llmprobe.plugin.asking import asked_within, one_or_many, trace_of
from pytest_llmprobe.plugin.engines import engine_of
from pytest_llmprobe.plugin.run import Run
from pytest_llmprobe.suite import seed_of

if TYPE_CHECKING:
    from pytest_llmprobe.engine import Engine

ABSENT = "this needs a judge: give --llmprobe-judge MODEL"

MOST = 1_000
"""Characters of what the judge says that the record keeps."""

PAIR = """Here are a question and two answers to it. Which answer is better?

Question: {question}

Answer A:
{first}

Answer B:
{second}

Reply with one letter, A or B, or with the word TIE.
"""

_FIRST = re.compile(r"\W*(?:Answer\s+)?(A|B|TIE)\W*(?:[\n.:,;)]|$)", re.IGNORECASE)
_NAMED = re.compile(r"\b(A|B|TIE)\b")


def judge_engine(run: Run, session: pytest.Session) -> Engine:
    """What the judge answers with; in a replay its recorded answers, unless one is named.

    The test is skipped where there is no judge.
    """
    from pytest_llmprobe.engine import Engine

    options, folder = run.options, run.folder
    if options.judge is not None:
        engine = engine_of(options.judge, run, session, "judge-budget.json")
        engine.store = folder.judge_store(engine.backend)
        return engine
    if (store := folder.replayed_judge) is None:
        pytest.skip(ABSENT)
    from pytest_llmprobe.engine.replay import ReplayBackend

    engine = Engine(ReplayBackend(store.info))
    engine.store = store
    return engine


class Judge:
    """Asks the judge within one test; what the ``judge`` fixture gives.

    What it says is in the record's params under ``judge``.

    Args:
        run: What the session knows.
        item: The test.
        engine: What answers for the judge.
    """

    def __init__(self, run: Run, item: pytest.Item, engine: Engine) -> None:
        self._run, self._item, self._engine = run, item, engine
        self._asked = 0

    def __call__(self, prompts: Prompt | Sequence[Prompt], **config: object) -> Any:
        """A Completion for one prompt, a list of them for a list of prompts.

        Args:
            prompts: Texts, or chats as lists of messages.
            config: Fields of ``GenerateConfig``; greedy unless they say otherwise.

        Raises:
            RequestError: A prompt cannot be answered.
            SettingsError: A generation option is unknown or out of range.
        """
        one, many = one_or_many(prompts)
        completions = self._ask(many, GenerateConfig.of(**config))
        return completions[0] if one else completions

    def prefers(self, question: str, first: str, second: str, **config: object) -> float | None:
        """Which of two answers the judge finds better, asked in both orders.

        Judges favour a place: who wins from one place only has won half of the time.

        Args:
            question: What was answered.
            first: One answer.
            second: The other one.
            config: Fields of ``GenerateConfig``.

        Returns:
            1.0 if the first is better, 0.0 if the second is, 0.5 if neither is in both orders; None
            if the judge gave no readable verdict.
        """
        orders = [(first, second), (second, first)]
        prompts = [PAIR.format(question=question, first=a, second=b) for a, b in orders]
        said = self._ask(prompts, GenerateConfig.of(**{"max_new_tokens": 64} | config))
        one, other = (verdict(completion.text) for completion in said)
        return None if one is None or other is None else (one + 1.0 - other) / 2

    def _ask(self, prompts: Sequence[Prompt], config: GenerateConfig) -> list[Completion]:
        seed = seed_of(self._run.options.suite.seed, self._item.nodeid, "judge")
        first, self._asked = self._asked, self._asked + len(prompts)
        requests = [
            Request(prompt, config, seed_of(seed, first + n)) for n, prompt in enumerate(prompts)
        ]
        said = asked_within(self._item, self._engine, requests, "the judge failed")
        details = trace_of(self._item).details
        details["judge"] = [*details.get("judge", ()), *(one.text[:MOST] for one in said)]
        return said


def verdict(text: str) -> float | None:
    """What a judge's words are worth for answer A: 1.0, 0.0 for B, 0.5 for a tie.

    Its first word, or the only answer that it names; None where it names both or neither.
    """
    first = _FIRST.match(text)
    named = {first[1].upper()} if first else set(_NAMED.findall(text))
    worth = {"A": 1.0, "B": 0.0, "TIE": 0.5}
    return worth[named.pop()] if len(named) == 1 else None
