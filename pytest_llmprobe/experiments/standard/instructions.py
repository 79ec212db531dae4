"""Rows in IFEval's layout, and whether an answer follows their instructions, strictly and loosely.

Verdicts as lm-evaluation-harness: strict takes the answer as it is; loose is content if it holds
without its first or last line, or without the asterisks of markdown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_llmprobe.data.rows import Row
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.standard.instruction_checks import CHECKS, NOT_CHECKED
from pytest_llmprobe.experiments.standard.perplexity import Scored
from pytest_llmprobe.suite import Suite


@dataclass(frozen=True)
class Task:
    """A prompt and what its answer must be like: ids of checks, and the arguments of each."""

    where: str
    prompt: str
    checks: tuple[str, ...]
    arguments: tuple[Mapping[str, Any], ...]

    def as_json(self) -> str:
        """The checks as one line, for a case's metadata."""
        return json.dumps(list(zip(self.checks, self.arguments, strict=True)), sort_keys=True)

    @classmethod
    def of(cls, line: str) -> Task:
        """The inverse of ``as_json``, without place and prompt."""
        checks, arguments = zip(*json.loads(line), strict=True)
        return cls("", "", checks, arguments)


@dataclass(frozen=True)
class Verdict:
    """Whether an answer follows each instruction, in their order."""

    checks: tuple[str, ...]
    strict: tuple[bool, ...]
    loose: tuple[bool, ...]

    @property
    def problem(self) -> str:
        """The instructions that are not followed strictly; empty if all are."""
        missed = [name for name, kept in zip(self.checks, self.strict, strict=True) if not kept]
        return f"not_followed: {', '.join(missed)}" if missed else ""

    @property
    def scores(self) -> dict[str, float]:
        """What a record keeps: all followed or not, how many, of how many."""
        return {
            "strict": float(all(self.strict)),
            "loose": float(all(self.loose)),
            "strict_instructions": float(sum(self.strict)),
            "loose_instructions": float(sum(self.loose)),
            "instructions": float(len(self.checks)),
        }


def tasks(rows: Iterable[Row], suite: Suite) -> Iterator[Task]:
    """The task of each row; rows with an instruction that no program verifies are left out.

    Raises:
        CasesError: A row cannot be used; names it and the field.
    """
    for where, row in rows:
        names = _list(where, row, "instruction_id_list", str)
        given = _list(where, row, "kwargs", Mapping)
        prompt = row.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            raise CasesError(f"{where}: field 'prompt' is {prompt!r}; it must be a text")
        if len(names) != len(given) or not names:
            raise CasesError(
                f"{where}: field 'kwargs' has {len(given)} entries for the {len(names)} ids of "
                "'instruction_id_list'"
            )
        if unchecked := NOT_CHECKED & set(names):
            suite.leave_out(where, f"{min(unchecked)} is not checked here")
            continue
        kept = tuple({k: v for k, v in one.items() if v is not None} for one in given)
        for name, arguments in zip(names, kept, strict=True):
            _check(where, name, arguments)
        yield Task(where, prompt, tuple(names), kept)


def _list(where: str, row: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    given = row.get(name)
    if not isinstance(given, list) or not all(isinstance(one, kind) for one in given):
        raise CasesError(f"{where}: field {name!r} is {given!r}; IFEval's rows have a list there")
    return given


def _check(where: str, name: str, arguments: Mapping[str, Any]) -> None:
    if name not in CHECKS:
        raise CasesError(
            f"{where}: field 'instruction_id_list' has {name!r}, which is none of IFEval's: "
            f"{', '.join(sorted(CHECKS))}"
        )
    if missing := [needed for needed in CHECKS[name][1] if needed not in arguments]:
        raise CasesError(f"{where}: field 'kwargs' has no {missing[0]!r} for {name!r}")
    for key, value in arguments.items():
        number = key.startswith("num_") or key in ("nth_paragraph",) or key.endswith("frequency")
        if number and (not isinstance(value, int | float) or value < 0):
            raise CasesError(f"{where}: field 'kwargs' has {key}={value!r}; it must be a number")
        if key in ("keywords", "forbidden_words") and not isinstance(value, list):
            raise CasesError(f"{where}: field 'kwargs' has {key}={value!r}; it must be a list")


def verdict(task: Task, answer: str) -> Verdict:
    """Whether an answer follows each instruction of a task; an empty one follows none."""
    variants = _variants(answer)
    strict = [_follows(task, number, answer) for number in range(len(task.checks))]
    loose = [
        any(_follows(task, number, text) for text in variants) for number in range(len(task.checks))
    ]
    return Verdict(task.checks, tuple(strict), tuple(loose))


def _follows(task: Task, number: int, text: str) -> bool:
    arguments = dict(task.arguments[number])
    return bool(text.strip()) and CHECKS[task.checks[number]][0](text, arguments)


def _variants(answer: str) -> list[str]:
    lines = answer.split("\n")
    cuts = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    return [text for whole in (answer, *cuts) for text in (whole, whole.replace("*", ""))]


def summary(records: Sequence[Scored]) -> dict[str, Any]:
    """IFEval's four rates: of whole prompts and of single instructions, strict and loose."""
    scored = [record.scores for record in records if "instructions" in record.scores]
    if not scored:
        return {}
    count = sum(scores["instructions"] for scores in scored)
    found = {f"prompt_level_{how}": _mean(scored, how) for how in ("strict", "loose")}
    for how in ("strict", "loose"):
        followed = sum(scores[f"{how}_instructions"] for scores in scored)
        found[f"instruction_level_{how}"] = followed / count
    return found


def _mean(scored: Sequence[Mapping[str, float]], name: str) -> float:
    return sum(scores[name] for scores in scored) / len(scored)
