"""Rows in GSM8K's layout (arXiv 2110.14168), and whether an answer comes to the same number.

Beside the careful reading that decides, the two metrics of lm-evaluation-harness
(tasks/gsm8k/gsm8k.yaml): strict-match and flexible-extract.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pytest_llmprobe.case import Case, Prompt
from pytest_llmprobe.data.rows import Row
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.standard.few_shot import Pool, prompt_of
from pytest_llmprobe.suite import Suite

STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
IGNORED = (r",", r"\$", r"(?s).*#### ", r"\.$")

INSTRUCTION = (
    "Solve the problem step by step. Write the result, a number alone, on the last line after "
    "####.\n\n"
)
STOP = ("Question:", "</s>", "<|im_end|>")

ReadNumber = Callable[[str], float | None]


@dataclass(frozen=True)
class Problem:
    """A question and its worked answer, which ends in ``#### 18``."""

    where: str
    question: str
    answer: str

    @property
    def asked(self) -> str:
        """As lm-evaluation-harness asks it."""
        return f"Question: {self.question}\nAnswer:"

    @property
    def result(self) -> str:
        """What follows the last ``####``, or the whole answer."""
        return self.answer.rpartition("####")[2].strip()


def problems(rows: Iterable[Row], number: ReadNumber) -> Iterator[Problem]:
    """The problem of each row.

    Args:
        rows: With the fields ``question`` and ``answer``.
        number: Reads a number from a text.

    Raises:
        CasesError: A row has other fields, or no number in its answer; names row and field.
    """
    for where, row in rows:
        if missing := [name for name in ("question", "answer") if name not in row]:
            raise CasesError(
                f"{where} has no field {missing[0]!r}; GSM8K's rows have question and answer, and "
                f"this one {', '.join(sorted(row)) or 'none'}"
            )
        question, answer = row["question"], row["answer"]
        if isinstance(answer, int | float) and not isinstance(answer, bool):
            answer = str(answer)
        for name, given in (("question", question), ("answer", answer)):
            if not isinstance(given, str) or not given.strip():
                raise CasesError(f"{where}: field {name!r} is {given!r}; it must be a text")
        found = Problem(where, question, answer)
        if number(found.result) is None:
            raise CasesError(f"{where}: field 'answer' has no number: {answer!r}")
        yield found


def exact_cases(
    suite: Suite, found: Sequence[Problem], name: str, source: object, room: int
) -> Iterator[Case]:
    """A case for each problem and trial.

    Asked as lm-evaluation-harness does where there are examples or a form is asked for; else a
    model with a chat template is told in a message how to write the result.

    Args:
        suite: Says how many examples and trials.
        found: The problems.
        name: Name of the data.
        source: Where they are from, for errors.
        room: Tokens of an answer.

    Raises:
        CasesError: There are not so many problems.
    """
    shown = suite.few_shot if suite.few_shot is not None else int(suite.continues)
    rng = suite.random("few_shot", name)
    pool = Pool.draw(range(len(found)), shown, rng, str(source))
    for at, problem in enumerate(found):
        examples = pool.before(at, found)
        prompt: Prompt = INSTRUCTION + problem.asked
        harness = bool(examples or suite.continues or suite.ask)
        if harness:
            solved = [(one.asked, one.answer) for one in examples]
            prompt = prompt_of(suite, solved, problem.asked)
        for trial in range(suite.trials or 1):
            yield Case(
                id=f"row-{at + 1}/{trial}" if suite.trials else f"row-{at + 1}",
                prompt=prompt,
                target=problem.result,
                metadata={"task": name, "row": problem.where, "trial": trial},
                max_new_tokens=room,
                stop=STOP if harness else (),
            )


def strict_match(answer: str, target: str) -> bool:
    """Whether the first number after ``####`` is the target, as a string."""
    return _kept(_extracted(STRICT, answer, 0)) == _kept(target)


def flexible_extract(answer: str, target: str) -> bool:
    """Whether the last number of the answer is the target, as a string."""
    return _kept(_extracted(FLEXIBLE, answer, -1)) == _kept(target)


def _extracted(pattern: re.Pattern[str], answer: str, which: int) -> str:
    found = pattern.findall(answer)
    if not found:
        return "[invalid]"
    one = found[which]
    parts = [part for part in one if part] if isinstance(one, tuple) else [one]
    return parts[0].strip() if parts else "[invalid]"


def _kept(text: str) -> str:
    for pattern in IGNORED:
        text = re.sub(pattern, "", text)
    return text.lower()


def why_missed(answer: str, target: str, number: ReadNumber) -> str:
    """Why an answer does not come to the target; empty if it does."""
    said = number(answer)
    if said is None:
        return "no_number: the answer holds none"
    if said != number(target):
        return f"other_number: it comes to {said:.15g} and not {target}"
    return ""
