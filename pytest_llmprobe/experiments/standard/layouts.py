"""Rows in the public layouts of multiple-choice tasks, recognised by their fields.

Prompts read as lm-evaluation-harness 0.4 writes them (its tasks/mmlu, hellaswag, arc, piqa,
winogrande), so the same rows give the same numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pytest_llmprobe.case import checked_choices, target_of
from pytest_llmprobe.data.rows import Row
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.standard.choices import joined

Fields: TypeAlias = Mapping[str, Any]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Question:
    """A question with choices, in text, as a model that continues texts is asked it.

    Args:
        where: The file and line, for errors.
        layout: Name of the layout.
        prompt: Up to where the choice follows.
        choices: What may follow.
        target: The right one.
        ending: What follows each choice and is scored instead of it; see ``Case``.
        header: What stands once before the first question.
        subject: What examples have in common, and results are grouped by.
        unconditional: See ``Case``.
    """

    where: str
    layout: str
    prompt: str
    choices: tuple[str, ...]
    target: str
    ending: str | None = None
    header: str = ""
    subject: str | None = None
    unconditional: str | None = None

    @property
    def solved(self) -> tuple[str, str]:
        """The question and its answer, as an example of few."""
        if self.ending is None:
            return self.prompt, self.target
        return self.prompt + joined(self.prompt, self.target), self.ending


def _mmlu(row: Fields) -> dict[str, Any]:
    choices = _several(row, "choices", row["choices"])
    letters = tuple(LETTERS[: len(choices)])
    listed = "".join(f"{at}. {text}\n" for at, text in zip(letters, choices, strict=True))
    subject = row.get("subject")
    header = "The following are multiple choice questions (with answers)"
    if isinstance(subject, str) and subject:
        header += f" about {subject.replace('_', ' ')}"
    return {
        "prompt": f"{_text(row, 'question').strip()}\n{listed}Answer:",
        "choices": letters,
        "target": _number(row, "answer", letters),
        "header": f"{header}.\n\n" if subject else "",
        "subject": subject or None,
    }


def _hellaswag(row: Fields) -> dict[str, Any]:
    context = f"{_text(row, 'ctx_a')} {_text(row, 'ctx_b').capitalize()}"
    endings = tuple(map(_without_marks, _several(row, "endings", row["endings"])))
    return {
        "prompt": _without_marks(f"{_text(row, 'activity_label')}: {context}"),
        "choices": endings,
        "target": _number(row, "label", endings),
    }


def _without_marks(text: str) -> str:
    """WikiHow's marks, as lm-evaluation-harness takes them out."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _arc(row: Fields) -> dict[str, Any]:
    given = row["choices"]
    labels = given.get("label") if isinstance(given, Mapping) else None
    choices = _several(row, "choices", given.get("text") if isinstance(given, Mapping) else given)
    if not isinstance(labels, list) or len(labels) != len(choices):
        raise CasesError(f"field 'choices' has the labels {labels!r} for {len(choices)} texts")
    key = row["answerKey"]
    if key not in labels:
        raise CasesError(f"field 'answerKey' is {key!r}, and the choices are {labels!r}")
    return {
        "prompt": f"Question: {_text(row, 'question')}\nAnswer:",
        "choices": choices,
        "target": choices[labels.index(key)],
    }


def _piqa(row: Fields) -> dict[str, Any]:
    choices = (_text(row, "sol1"), _text(row, "sol2"))
    return {
        "prompt": f"Question: {_text(row, 'goal')}\nAnswer:",
        "choices": choices,
        "target": _number(row, "label", choices),
    }


def _winogrande(row: Fields) -> dict[str, Any]:
    sentence = _text(row, "sentence")
    before, blank, after = sentence.partition("_")
    if not blank or not after.strip():
        raise CasesError(f"field 'sentence' has no '_' with text after it: {sentence!r}")
    choices = (_text(row, "option1"), _text(row, "option2"))
    if row["answer"] not in ("1", "2"):
        raise CasesError(
            f"field 'answer' is {row['answer']!r}: it must be '1' or '2'; use a split with answers"
        )
    target = choices[int(row["answer"]) - 1]
    return {"prompt": before, "choices": choices, "target": target, "ending": after.strip()}


def _own(row: Fields) -> dict[str, Any]:
    return {
        "prompt": _text(row, "prompt"),
        "choices": _several(row, "choices", row["choices"]),
        "target": row["target"],
        "ending": row.get("ending"),
        "subject": row.get("subject"),
        "unconditional": row.get("unconditional"),
    }


LAYOUTS: Mapping[str, tuple[frozenset[str], Callable[[Fields], dict[str, Any]]]] = {
    "hellaswag": (frozenset({"activity_label", "ctx_a", "ctx_b", "endings", "label"}), _hellaswag),
    "arc": (frozenset({"question", "choices", "answerKey"}), _arc),
    "mmlu": (frozenset({"question", "choices", "answer"}), _mmlu),
    "piqa": (frozenset({"goal", "sol1", "sol2", "label"}), _piqa),
    "winogrande": (frozenset({"sentence", "option1", "option2", "answer"}), _winogrande),
    "own": (frozenset({"prompt", "choices", "target"}), _own),
}
"""Fields by which a layout is known, and how a row of it is read."""


def questions(rows: Iterable[Row]) -> Iterator[Question]:
    """The question of each row; all rows have the layout of the first.

    Raises:
        CasesError: A row has no known layout, another one than the first, or cannot be used; names
            the row and the field.
    """
    first: tuple[str, str] | None = None
    for where, row in rows:
        layout = layout_of(where, row)
        if first is None:
            first = where, layout
        if layout != first[1]:
            raise CasesError(
                f"{where} has the layout of {layout}, and {first[0]} that of {first[1]}: give each "
                "a file of its own"
            )
        yield _question(where, layout, row)


def layout_of(where: str, row: Fields) -> str:
    """The layout whose fields a row has.

    Raises:
        CasesError: It has those of none.
    """
    for name, (fields, _) in LAYOUTS.items():
        if fields <= row.keys():
            return name
    known = "; ".join(f"{name}: {', '.join(sorted(f))}" for name, (f, _) in LAYOUTS.items())
    raise CasesError(
        f"{where} has the fields {', '.join(sorted(row)) or 'none'}, which no known layout has "
        f"({known})"
    )


def _question(where: str, layout: str, row: Fields) -> Question:
    try:
        found = LAYOUTS[layout][1](row)
        try:
            found["choices"] = checked_choices(found["choices"])
            found["target"] = target_of(found["choices"], found["target"])
        except CasesError as error:
            raise CasesError(f"fields of {layout}: {error}") from None
    except CasesError as error:
        raise CasesError(f"{where}: {error}") from None
    return Question(where, layout, **found)


def _text(row: Fields, name: str) -> str:
    if not isinstance(row[name], str) or (not row[name].strip() and name != "ctx_b"):
        raise CasesError(f"field {name!r} is {row[name]!r}; it must be a text")
    return str(row[name])


def _several(row: Fields, name: str, given: object) -> tuple[str, ...]:
    if not isinstance(given, list | tuple):
        raise CasesError(f"field {name!r} is {given!r}; it must be a list of texts")
    for number, choice in enumerate(given):
        if not isinstance(choice, str) or not choice.strip():
            raise CasesError(f"field {name!r}: choice {number} is {choice!r}; it must be a text")
    return tuple(given)


def _number(row: Fields, name: str, choices: tuple[str, ...]) -> str:
    """The choice that a field numbers from 0, in digits too, or names."""
    given = row[name]
    if isinstance(given, str) and given not in choices and re.fullmatch(r"\d{1,2}", given):
        given = int(given)
    try:
        return target_of(choices, given)
    except CasesError as error:
        hint = "" if given not in (-1, "", None) else "; use a split with answers"
        raise CasesError(f"field {name!r}: {error}{hint}") from None
