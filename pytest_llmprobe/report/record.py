"""One case's line in the report, in built-in types only."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pytest_llmprobe.case import Case, prompt_text
from pytest_llmprobe.errors import LlmprobeError
from pytest_llmprobe.generation import Completion
from pytest_llmprobe.report.failures import OTHER, failure_word

Outcome: TypeAlias = Literal["passed", "missed", "error", "skipped"]

MAX_TEXT = 10_000
"""Characters of model output or of an error message that a record keeps."""

PROMPT_END = 1_000
"""Characters of a long prompt that a record keeps from either end: the question is at one."""

DERIVED = ("is_correct", "failure")
"""Entries of a record in JSON that its other ones tell."""


@dataclass(frozen=True)
class Record:
    """What the report says about one case; see docs/report.md for each field."""

    id: str
    experiment: str
    outcome: Outcome
    task: str | None = None
    size: Any = None
    trial: Any = None
    group: str | None = None
    shares_prefix: bool | None = None
    params: dict[str, Any] = field(default_factory=dict)
    prompt: str | None = None
    expected: Any = None
    received: str | None = None
    thought: str | None = None
    explanation: str | None = None
    error: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    chance: float | None = None
    duration: float = 0.0
    latency_s: float | None = None
    first_token_s: float | None = None
    wall_s: float | None = None
    prompt_characters: int = 0
    prompt_tokens: int | None = 0
    generated_tokens: int | None = 0
    finish_reason: str | None = None
    cut_off_at: int | None = None
    batch_size: int | None = None
    redone: bool = False
    prompt_hash: str | None = None
    seed: int | None = None
    max_new_tokens: int | None = None
    steered: list[str] = field(default_factory=list)
    steered_layers: int = 0
    fidelity: dict[str, Any] | None = None

    @property
    def cluster(self) -> str | None:
        """What it depends on beside itself: its group, unless that is known to be a mere label.

        Without one it is what it was asked: repeats of a prompt are one cluster.
        """
        return (None if self.shares_prefix is False else self.group) or self.prompt_hash

    @property
    def is_correct(self) -> bool:
        """Whether the case passed."""
        return self.outcome == "passed"

    @property
    def failure(self) -> str | None:
        """The short word for why the case missed; None if it did not."""
        if self.outcome != "missed":
            return None
        return failure_word(self.explanation) if self.explanation else OTHER

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with ``is_correct`` and ``failure``; what it holds is the record's own."""
        return vars(self) | {name: getattr(self, name) for name in DERIVED}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """The inverse of ``as_dict``."""
        return cls(**{key: value for key, value in data.items() if key not in DERIVED})


def _total(counts: Iterable[int | None]) -> int | None:
    """Their sum; unknown if one is."""
    known = list(counts)
    return None if None in known else sum(count or 0 for count in known)


def build_record(
    node_id: str,
    experiment: str,
    outcome: Outcome,
    case: Case | None,
    completions: Sequence[Completion],
    scores: Mapping[str, float],
    explanation: str | None = None,
    error: str | None = None,
    prompt_characters: int = 0,
    details: Mapping[str, Any] | None = None,
    cut_off: bool = False,
    clusters: Container[str] | None = None,
    fidelity: dict[str, Any] | None = None,
) -> Record:
    """Put together what is known about a case after its test ran.

    ``completions`` are all answers in this test, of which the last is the one received, and
    ``prompt_characters`` the length of all their prompts. ``explanation`` says in the evaluation's
    words why it missed or was skipped, ``error`` why it could not be measured. ``details``, what a
    fixture found, are kept beside the case's metadata. ``cut_off`` says that the last answer had no
    room to become complete. ``clusters`` are the groups whose prompts share a long beginning.
    ``fidelity`` is what `case_fidelity` says.
    """
    metadata = dict(plain(case.metadata)) if case else {}
    last = completions[-1] if completions else None
    waited = [c.timings.latency_s for c in completions if c.timings.latency_s is not None]
    walls = [c.timings.wall_s for c in completions if c.timings.wall_s is not None]
    return Record(
        id=node_id,
        experiment=experiment,
        outcome=outcome,
        task=None if (task := metadata.pop("task", None)) is None else str(task),
        size=metadata.pop("size", None),
        trial=metadata.pop("trial", None),
        group=case.group if case else None,
        shares_prefix=_shares_prefix(case, clusters),
        params=metadata | plain(details or {}),
        prompt=_both_ends(plain(prompt_text(case.prompt))) if case else None,
        expected=plain(case.target) if case else None,
        received=bounded(last.text) if last else None,
        thought=bounded(last.thought) if last else None,
        explanation=bounded(explanation),
        error=bounded(error),
        scores=dict(scores),
        chance=case.chance if case else None,
        duration=sum(completion.timings.generation_s for completion in completions),
        latency_s=sum(waited) if waited else None,
        first_token_s=last.timings.first_token_s if last else None,
        wall_s=sum(walls) if walls else None,
        prompt_characters=prompt_characters,
        prompt_tokens=_total(completion.usage.prompt_tokens for completion in completions),
        generated_tokens=_total(completion.usage.generated_tokens for completion in completions),
        finish_reason=last.finish_reason if last else None,
        cut_off_at=last.usage.generated_tokens if last and cut_off else None,
        batch_size=last.timings.batch_size if last else None,
        redone=any(completion.redone for completion in completions),
        prompt_hash=last.prompt_hash if last else None,
        seed=case.seed if case else None,
        max_new_tokens=case.max_new_tokens if case else None,
        steered=[str(bounded(text)) for text in last.steered] if last else [],
        steered_layers=last.steered_layers if last else 0,
        fidelity=fidelity,
    )


def _shares_prefix(case: Case | None, clusters: Container[str] | None) -> bool | None:
    if case is None or case.group is None or clusters is None:
        return None
    return case.group in clusters


def bounded(text: str | None, limit: int = MAX_TEXT) -> str | None:
    """The text, or its first ``limit`` characters and how many are left out."""
    if text is None or len(text) <= limit:
        return text
    return f"{text[:limit]}... [{len(text) - limit} more characters]"


def _both_ends(text: str) -> str:
    left_out = len(text) - 2 * PROMPT_END
    if left_out <= 0:
        return text
    return f"{text[:PROMPT_END]}... [{left_out} more characters] ...{text[-PROMPT_END:]}"


def explained(error: BaseException) -> str:
    """An error on one line, ours without their type's name."""
    text = str(error).strip() or type(error).__name__
    return text if isinstance(error, LlmprobeError) else f"{type(error).__name__}: {text}"


def plain(value: object) -> Any:
    """The value in exact built-in types that JSON knows.

    Subclasses (a str-Enum, a numpy scalar) become their base type and NaN a string: execnet, which
    carries reports between processes, accepts exact types only, and JSON has no NaN.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=str)
    item: Any = getattr(value, "item", None)  # numpy and torch scalars
    if callable(item) and getattr(value, "ndim", None) == 0:
        if type(item()) is type(value):  # numpy.longdouble gives itself
            return plain(float(item()))
        return plain(item())
    return str(value)
