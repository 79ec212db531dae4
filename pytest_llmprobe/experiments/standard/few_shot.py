"""Solved examples before a question: the same ones for all rows, and never the row that is asked.

One prefix for all is computed once a work unit; a row that is among the examples has the next one
in its own place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from pytest_llmprobe.case import Case, Prompt, RawPrompt
from pytest_llmprobe.data.sources import Dataset
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.standard.choices import joined
from pytest_llmprobe.experiments.standard.layouts import Question
from pytest_llmprobe.suite import Suite

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

        Raises:
            CasesError: There are too few.
        """
        if shown >= len(numbers):
            raise CasesError(
                f"--llmprobe-few-shot {shown}: {what} has {len(numbers)} rows, of which one is "
                f"asked: give at most {max(0, len(numbers) - 1)}"
            )
        return cls(tuple(rng.sample(list(numbers), shown + 1)) if shown else (), shown)

    def before(self, asked: int, rows: Sequence[T]) -> list[T]:
        """The examples of one row."""
        return [rows[number] for number in self.drawn if number != asked][: self.shown]


def prompt_of(
    suite: Suite, examples: Sequence[tuple[str, str]], question: str, header: str = ""
) -> Prompt:
    """A question after its examples, in the form that the user asks for.

    A text unless they ask for another. The forms are those of lm-evaluation-harness: without its
    ``--apply_chat_template``, with it, and with ``--fewshot_as_multiturn``.

    Args:
        suite: Says which form.
        examples: Questions and their answers.
        question: What is asked.
        header: What stands once before all; the system's message of a chat.

    Raises:
        CasesError: The model has no chat template.
    """
    if suite.ask not in (None, "text") and suite.continues:
        raise CasesError(
            f"--llmprobe-ask {suite.ask}: the model has no chat template: give --llmprobe-ask text"
        )
    system = [{"role": "system", "content": header}] if header else []
    if suite.ask == "turns":
        turns = [
            {"role": role, "content": content}
            for pair in examples
            for role, content in zip(("user", "assistant"), pair, strict=True)
        ]
        return [*system, *turns, {"role": "user", "content": question}]
    before = "".join(f"{asked}{joined(asked, answer)}\n\n" for asked, answer in examples)
    if suite.ask == "message":
        return [*system, {"role": "user", "content": before + question}]
    return RawPrompt(header + before + question)


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
        _case(suite, number, question, pools[question.subject].before(number, found))
        for number, question in enumerate(found)
    ]


def _case(suite: Suite, number: int, question: Question, examples: Sequence[Question]) -> Case:
    solved = [example.solved for example in examples]
    prompt = prompt_of(suite, solved, question.prompt, question.header)
    metadata: dict[str, Any] = {"task": question.layout, "row": question.where}
    if question.subject is not None:
        metadata["subject"] = question.subject
    try:
        return Case(
            id=f"row-{number + 1}",
            prompt=prompt,
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
