"""How far a model's answers depend on the batch: the same prompts alone and among others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.case import Prompt
from pytest_llmprobe.engine.backend import Backend
from pytest_llmprobe.engine.completion_file import Outcome
from pytest_llmprobe.engine.engine import Engine
from pytest_llmprobe.engine.meter import OnProgress
from pytest_llmprobe.errors import BudgetError, RequestError, ServerError
from pytest_llmprobe.generation import Completion, GenerateConfig, Request
from pytest_llmprobe.statistics.intervals import Interval, wilson

if TYPE_CHECKING:
    from pytest_llmprobe.models.loading import LoadedModel

MAX_NEW_TOKENS = 24

SHOWN = 5
"""Answers of one way whose first difference is kept."""


@dataclass(frozen=True)
class Difference:
    """Where an answer left the one that its prompt has alone.

    Args:
        prompt: Number of the prompt, from 1.
        token: Number of the first token that differs, from 1; 1 if there was no answer; None of a
            server, whose answers are texts.
    """

    prompt: int
    token: int | None


@dataclass(frozen=True)
class Way:
    """One way of asking, compared with asking one by one.

    Args:
        name: ``batched``, ``padded`` or ``shared``.
        n: Prompts that were compared.
        flipped: Those whose token ids differ, or texts if a server gives those alone.
        redone: Those that were a close call and have been decided alone.
        rows: Rows of its largest batch, or requests that a server is sent together; 1 where this
            model is never asked in batches.
        first_differences: Of the first few that flipped.
    """

    name: str
    n: int
    flipped: int
    redone: int
    rows: int
    first_differences: tuple[Difference, ...] = ()

    @property
    def rate(self) -> float | None:
        """Share of the answers that flipped; None if none could be compared."""
        return self.flipped / self.n if self.n else None

    @property
    def ci95(self) -> Interval | None:
        """Wilson interval of the rate."""
        return wilson(self.flipped, self.n) if self.n else None


@dataclass(frozen=True)
class SelfCheck:
    """What ``self_check`` found.

    Args:
        dtype: Number type of the model, or None if the backend does not say.
        prompts: How many were asked one by one.
        failed: Why some of them had no answer, each reason once; they are not compared.
        tokens: Of all answers one by one.
    """

    dtype: str | None
    shares_prefixes: bool
    prompts: int
    failed: tuple[str, ...]
    tokens: int
    seconds: float
    ways: tuple[Way, ...]

    def as_dict(self) -> dict[str, Any]:
        """For the report's ``self_check``."""
        ways = [asdict(way) | {"rate": way.rate, "ci95": way.ci95} for way in self.ways]
        return asdict(self) | {"failed": list(self.failed), "ways": ways}


def self_check(
    model: LoadedModel | Backend,
    alone: Sequence[Prompt],
    shared: Sequence[Prompt],
    long: Prompt,
    *,
    batch_size: int | None = None,
    token_budget: int | None = None,
    drafts: bool = True,
    other: Backend | None = None,
    on_progress: OnProgress | None = None,
) -> SelfCheck:
    """Ask the same prompts in four ways, greedy, and count the answers that differ.

    One by one is plain ``generate`` at batch size 1. Batched: all prompts in the batches that the
    engine plans. Padded: those without a common beginning in one batch beside a much longer one.
    Shared: those with a common beginning in one batch, which is stored once where this model's
    attention allows it. Of a server the ways are requests that are sent together, and prompts of
    which there was no answer, which is the connection's matter, are left out.

    Args:
        model: A loaded model, or anything that follows the Backend protocol.
        alone: Prompts of different lengths without a common beginning.
        shared: Prompts that begin with the same 64 tokens or more; at least two.
        long: What the prompts of ``alone`` are padded to; its answer is not compared.
        batch_size: Rows of a batch of the batched way; None lets the engine choose.
        token_budget: Tokens of a batch; None lets the engine choose.
        drafts: Whether the engine may guess tokens for the model to check.
        other: Another program's engine, which answers in all ways but one by one: that is the
            model's own plain ``generate``.
        on_progress: Told how far each way is.
    """
    start = time.perf_counter()
    prompts, split = [*alone, *shared], len(alone)
    expected = _asked(Engine(model, batch_size=1), prompts, on_progress)
    numbered = list(enumerate(expected, 1))
    ways = []
    for name, size, asked, reference in (
        ("batched", batch_size, prompts, numbered),
        ("padded", split + 1, [*alone, long], numbered[:split]),
        ("shared", len(shared), shared, numbered[split:]),
    ):
        asking = other or model
        engine = Engine(asking, batch_size=size, token_budget=token_budget, drafts=drafts)
        ways.append(_compared(name, reference, _asked(engine, asked, on_progress)))
    return SelfCheck(
        dtype=_dtype(model, other),
        shares_prefixes=engine.backend.shares_prefixes
        or bool(getattr(engine.backend, "copies_prefixes", False)),
        prompts=len(prompts),
        failed=tuple(dict.fromkeys(str(e) for e in expected if isinstance(e, RequestError))),
        tokens=sum(e.usage.generated_tokens or 0 for e in expected if isinstance(e, Completion)),
        seconds=time.perf_counter() - start,
        ways=tuple(ways),
    )


def _asked(
    engine: Engine, prompts: Sequence[Prompt], on_progress: OnProgress | None
) -> list[Outcome]:
    config = GenerateConfig(max_new_tokens=MAX_NEW_TOKENS)
    return engine.attempt([Request(prompt, config) for prompt in prompts], on_progress)


def _compared(name: str, expected: Sequence[tuple[int, Outcome]], found: Sequence[Outcome]) -> Way:
    """The way's figures; ``expected`` are the numbers and answers of the first of ``found``."""
    pairs = [
        (number, alone, answer)
        for (number, alone), answer in zip(expected, found, strict=False)
        if isinstance(alone, Completion) and not isinstance(answer, ServerError | BudgetError)
    ]
    differences = [
        Difference(number, _first_difference(alone, answer))
        for number, alone, answer in pairs
        if _said(alone) != _said(answer)
    ]
    return Way(
        name,
        n=len(pairs),
        flipped=len(differences),
        redone=sum(isinstance(answer, Completion) and answer.redone for _, _, answer in pairs),
        rows=max((a.timings.batch_size for a in found if isinstance(a, Completion)), default=0),
        first_differences=tuple(differences[:SHOWN]),
    )


def _said(outcome: Outcome) -> object:
    return isinstance(outcome, Completion) and (outcome.token_ids, outcome.text)


def _first_difference(alone: Completion, answer: Outcome) -> int | None:
    """Number of the first token that differs, the end of the shorter one included."""
    if not isinstance(answer, Completion):
        return 1
    a, b = alone.token_ids, answer.token_ids
    if not (a or b):
        return None
    both = zip(a, b, strict=False)
    return next((at for at, (x, y) in enumerate(both, 1) if x != y), min(len(a), len(b)) + 1)


def _dtype(model: LoadedModel | Backend, other: Backend | None) -> str | None:
    if other is not None:
        return "{precision} by {name} {version}".format_map(other.info["engine"])
    if isinstance(model, Backend):
        dtype: str | None = model.info.get("dtype")
        return dtype
    return str(model.model.dtype).removeprefix("torch.")
