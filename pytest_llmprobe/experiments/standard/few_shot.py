"""Solved examples before a question: the same ones for all rows, and never the row that is asked.

One prefix for all is computed once a work unit; a row that is among the examples has the next one
in its own place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from pytest_llmprobe.case import Case, RawPrompt
from pytest_llmprobe.data.sources import Dataset
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.standard.layouts import Question
from pytest_llmprobe.suite import Suite

OWN_ROWS = "our own rows"
"""The source of rows that ship with the evaluations."""

T = TypeVar("T")


@dataclass(frozen=True)
class Pool:
    """Rows that examples are drawn from.

    Args:
        drawn: Numbers of the rows that were drawn, one more than are shown.
        shown: How many are shown.
    """

    drawn: tuple[int, ...]
    shown: int

    @classmethod
    def draw(cls, numbers: Sequence[int], shown: int, rng: Random, what: str) -> Pool:
        """Draw from the rows with these numbers.

        Of rows that ship with the evaluations as many are shown as there are: whoever asks for
        examples before another task's rows does not choose those.

        Raises:
            CasesError: There are too few.
        """
        if what.startswith(OWN_ROWS):
            shown = min(shown, len(numbers) - 1)
        if shown >= len(numbers):
            raise CasesError(
                f"--llmprobe-few-shot {shown}: {what} has {len(numbers)} rows, of which one is "
                f"asked: give at most {max(0, len(numbers) - 1)}"
            )
        return cls(tuple(rng.sample(list(numbers), shown + 1)) if shown else (), shown)

    def before(self, asked: int, rows: Sequence[T]) -> list[T]:
        """The examples of one row."""
        return [rows[number] for number in self.drawn if number != asked][: self.shown]


def choice_cases(suite: Suite, found: Sequence[Question], name: str, source: object) -> list[Case]:
    """A case for each question, after as many examples of its subject as the user asked for.

    Args:
        suite: Says how many, and seeds the draw.
        found: All questions of one source.
        name: Name of the data.
        source: Where they are from, for errors.

    Raises:
        CasesError: There are not so many.
    """
    subjects: dict[str | None, list[int]] = {}
    for number, question in enumerate(found):
        subjects.setdefault(question.subject, []).append(number)
    pools = {
        subject: Pool.draw(
            numbers,
            suite.few_shot or 0,
            suite.random("few_shot", name, subject or ""),
            f"{source}{f', subject {subject!r},' if subject else ''}",
        )
        for subject, numbers in subjects.items()
    }
    return [
        _case(number, question, pools[question.subject].before(number, found))
        for number, question in enumerate(found)
    ]


def _case(number: int, question: Question, examples: Sequence[Question]) -> Case:
    before = "".join(f"{example.solved}\n\n" for example in examples)
    metadata: dict[str, Any] = {"task": question.layout, "row": question.where}
    if question.subject is not None:
        metadata["subject"] = question.subject
    try:
        return Case(
            id=f"row-{number + 1}",
            prompt=RawPrompt(question.header + before + question.prompt),
            choices=question.choices,
            target=question.target,
            ending=question.ending,
            unconditional=question.unconditional,
            chance=1 / len(question.choices),
            metadata=metadata,
        )
    except CasesError as error:
        raise CasesError(f"{question.where}: {error}") from None


def questions_of(data: Dataset, found: Sequence[T]) -> Sequence[T]:
    """The rows of a source.

    Raises:
        CasesError: There are none.
    """
    if not found:
        raise CasesError(f"{data} holds no rows")
    return found
