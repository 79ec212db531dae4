"""How good answers are: a scorer takes rows and answers and gives a number for each, or for all.

Any function of (rows, answers) is one; these are the usual ones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeAlias

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.search.numbers import last_number
from pytest_llmprobe.search.rows import SearchRow

Scorer: TypeAlias = Callable[[Sequence[SearchRow], Sequence[str]], Any]
"""Gives a sequence of numbers, one a row, or one number for all rows; more is better."""


@dataclass(frozen=True)
class _Scorer:
    column: str = "answer"

    @property
    def columns(self) -> tuple[str, ...]:
        """What every row must have."""
        return (self.column,)


class ExactMatch(_Scorer):
    """1 where the answer is the column's text, white space around both and case aside.

    Args:
        column: Holds the right answer, or a list of right ones.
    """

    def __call__(self, rows: Sequence[SearchRow], answers: Sequence[str]) -> list[float]:
        """One number a row, 0 or 1."""
        scores = []
        for row, answer in zip(rows, answers, strict=True):
            right = row[self.column]
            several = right if isinstance(right, list | tuple) else [right]
            scores.append(float(_plain(answer) in map(_plain, several)))
        return scores


def _plain(text: object) -> str:
    return str(text).strip().casefold()


@dataclass(frozen=True)
class RegexNumber(_Scorer):
    """1 where the answer's number is the column's, as for arithmetic: see `numbers.last_number`.

    Args:
        column: Holds a number, or a text whose number counts (``... #### 18``).
        pattern: What to take for the number in the answer, where it occurs last: a pattern, of
            which the first group counts if it has one.
    """

    pattern: str | None = None

    def __call__(self, rows: Sequence[SearchRow], answers: Sequence[str]) -> list[float]:
        """One number a row, 0 or 1.

        Raises:
            CasesError: A row's column holds no number.
        """
        scores = []
        for row, answer in zip(rows, answers, strict=True):
            right = last_number(str(row[self.column]))
            if right is None:
                raise CasesError(f"row {row['id']}: {self.column!r} holds no number")
            said = self._said(answer)
            scores.append(float(said is not None and _equal(said, right)))
        return scores

    def _said(self, answer: str) -> float | None:
        if self.pattern is None:
            return last_number(answer)
        found = list(re.finditer(self.pattern, answer))
        part = found[-1][min(1, found[-1].re.groups)] if found else None
        return None if part is None else last_number(part)


def _equal(said: float, right: float) -> bool:
    """Whole numbers must be the same ones; of others the last digits may be rounded."""
    whole = said.is_integer() and right.is_integer()
    return said == right if whole else math.isclose(said, right, rel_tol=1e-6)


class Rouge:
    """ROUGE F-measure (Lin 2004) against the column's text, by the ``rouge-score`` package.

    It compares runs of the letters a to z and digits, so it is meant for English.

    Args:
        column: Holds the reference.
        kind: ``rouge1``, ``rouge2``, ``rougeL`` or ``rougeLsum``.

    Raises:
        SettingsError: The package is missing, or there is no such kind.
    """

    def __init__(self, column: str = "reference", kind: str = "rougeL") -> None:
        if find_spec("rouge_score") is None:
            raise SettingsError("ROUGE needs rouge-score: pip install 'pytest-llmprobe[search]'")
        if not re.fullmatch(r"rouge([1-9]|L|Lsum)", kind):
            raise SettingsError(f"kind={kind!r}: give rouge1, rouge2, rougeL or rougeLsum")
        from rouge_score.rouge_scorer import RougeScorer

        self.columns, self._kind = (column,), kind
        self._scorer = RougeScorer([kind])

    def __call__(self, rows: Sequence[SearchRow], answers: Sequence[str]) -> list[float]:
        """One number a row, from 0 to 1."""
        (column,) = self.columns
        return [
            float(self._scorer.score(str(row[column]), answer)[self._kind].fmeasure)
            for row, answer in zip(rows, answers, strict=True)
        ]


def checked_scores(scorer: Scorer, rows: Sequence[SearchRow], answers: Sequence[str]) -> Any:
    """What a scorer says: a list of floats, one a row, or one float.

    Raises:
        CasesError: It says something else, or a number that is not finite.
    """
    given = scorer(rows, answers)
    name = getattr(scorer, "__name__", type(scorer).__name__)
    if given is not None and not isinstance(given, str) and getattr(given, "ndim", 1) == 0:
        given = given.item()  # a numpy scalar
    several = not isinstance(given, bool | int | float)
    try:
        numbers = [float(one) for one in given] if several else [float(given)]
    except (TypeError, ValueError):
        raise CasesError(
            f"the scorer {name} gave {type(given).__name__}; give a number a row, or one for all"
        ) from None
    if several and len(numbers) != len(rows):
        raise CasesError(f"the scorer {name} gave {len(numbers)} numbers for {len(rows)} rows")
    if not all(map(math.isfinite, numbers)):
        raise CasesError(f"the scorer {name} gave a number that is not finite")
    return numbers if several else numbers[0]
