"""What is asked of a model and what comes back: config, request, completion."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, TypeAlias

from pytest_llmprobe.case import Case, Prompt, Span, checked_spans
from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.generation.config import GREEDY, is_whole
from pytest_llmprobe.generation.config import GenerateConfig as GenerateConfig

FinishReason: TypeAlias = Literal["stop", "length", "stop_string"]
LONGEST_REASON = 40
"""Characters of a server's own word for why an answer ended."""

Layers: TypeAlias = Literal["all", "first", "last"] | tuple[int, ...]
Phase: TypeAlias = Literal["all", "prefill"]

LARGEST_DELTA = 100
"""All attention and more: 16-bit scores would overflow far beyond it."""


def delta_grid(given: object) -> tuple[float, ...]:
    """Values of Delta in their order, from a number or several.

    Raises:
        SettingsError: Something else, a number that is too large, or one that is given twice.
    """
    values = (
        tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    )
    grid = []
    for value in values:
        if not _is_number(value) or not abs(value) <= LARGEST_DELTA:
            raise SettingsError(
                f"delta={value!r}: it must be a number between {-LARGEST_DELTA} and {LARGEST_DELTA}"
            )
        grid.append(int(value) if value == int(value) else float(value))
    names = [f"{value:g}" for value in grid]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(f"delta={twice[0]} is given twice")
    return tuple(grid)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True)
class Steer:
    """How to steer a model's attention to spans of a prompt (GUIDE, arXiv 2409.19001).

    Args:
        spans: Substrings of the prompt; strings become Spans.
        delta: Delta: at every head and query of the chosen layers the odds of the spans' tokens
            against all others are multiplied by e^Delta. 0 steers nothing.
        layers: ``all`` that can be steered, the ``first`` or ``last`` of them, or numbers from 0.
        phase: ``prefill``, as in the code of the GUIDE paper: decoded tokens attend as ever; or
            ``all``: they are steered, too.

    Raises:
        CasesError: There is no span, or it is none.
        SettingsError: An argument is out of range.
    """

    spans: tuple[Span, ...]
    delta: float
    layers: Layers = "all"
    phase: Phase = "prefill"

    def __post_init__(self) -> None:
        object.__setattr__(self, "spans", checked_spans(self.spans))
        if not self.spans:
            raise CasesError("there is no span to steer; give a substring of the prompt")
        (delta,) = delta_grid([self.delta])
        object.__setattr__(self, "delta", delta)
        layers: Any = self.layers
        if not isinstance(layers, str):
            numbers = tuple(layers) if isinstance(layers, Iterable) else (layers,)
            if not numbers or not all(is_whole(number, 0) for number in numbers):
                raise SettingsError(f"layers={layers!r}: give numbers of layers from 0 up")
            object.__setattr__(self, "layers", tuple(sorted(set(numbers))))
        elif layers not in ("all", "first", "last"):
            raise SettingsError(f"layers={layers!r}: give 'all', 'first', 'last' or numbers")
        if self.phase not in ("all", "prefill"):
            raise SettingsError(f"phase={self.phase!r}: give 'all' or 'prefill'")


@dataclass(frozen=True)
class Request:
    """One prompt to be completed.

    Args:
        prompt: A string or chat messages.
        config: How to generate.
        seed: Seed of this row's sampling: its answer depends on no other row.
        draft: A guess of the answer, as text or token ids, such as the right one or an earlier
            run's: tokens that the model would say anyway cost less. The answer is the same with
            any draft.
        steer: Which spans of the prompt to steer the model's attention to, and how.
        continuation: Nothing is generated: the answer says how likely the model finds this text
            after the prompt. After the raw prompt ``""`` it is a text from its beginning.
    """

    prompt: Prompt
    config: GenerateConfig = GREEDY
    seed: int = 0
    draft: str | tuple[int, ...] | None = None
    steer: Steer | None = None
    continuation: str | None = None

    @classmethod
    def of_case(cls, case: Case, config: GenerateConfig, steer: Steer | None = None) -> Request:
        """The request that asks a case; its spans matter only in ``steer``.

        The room and the stop strings that the case names hold, the others are the config's.
        """
        draft = case.target if isinstance(case.target, str) else None
        return cls(case.prompt, config.for_case(case), case.seed, draft, steer)


@dataclass(frozen=True)
class Usage:
    """True token counts of one row, padding apart; None where a server does not tell them.

    Args:
        prompt_tokens: Tokens of the prompt, chat template included.
        generated_tokens: Tokens generated, the end-of-sequence token included.
    """

    prompt_tokens: int | None
    generated_tokens: int | None


@dataclass(frozen=True)
class Timings:
    """Where the time went.

    Args:
        generation_s: This row's share of its batch's wall time, in seconds.
        batch_size: Rows that were generated together.
        latency_s: From sending this row's request to a server until the whole answer was there, in
            seconds, without waiting and earlier attempts; None in this process.
        first_token_s: Until its first token was there, if the answer was streamed.
        wall_s: From the beginning of its batch until this row's answer was complete, in seconds;
            of a server as ``latency_s``. None if that is not known.
    """

    generation_s: float
    batch_size: int
    latency_s: float | None = None
    first_token_s: float | None = None
    wall_s: float | None = None


@dataclass(frozen=True)
class Completion:
    """A model's answer to one request.

    Args:
        text: The answer without special tokens and without the model's thought, cut before a stop
            string; empty if the thought has not ended.
        token_ids: All generated ids, the end-of-sequence token included; a server gives none.
        finish_reason: ``stop`` (end-of-sequence token), ``length`` (max_new_tokens reached) or
            ``stop_string``; a server's own word if it is none of these.
        usage: Token counts.
        timings: Seconds and batch size.
        prompt_hash: SHA-256 of the prompt's token ids, or of what a server is sent of the prompt;
            16 hex digits.
        redone: Some token was so close a call that another batch could have turned it; the row
            was decided on its own.
        steered: The text of the tokens that were steered, for each span; empty if none was.
        steered_layers: Layers in which the prompt's last token sees them: fewer than were asked for
            if some layers keep a window that has moved on.
        recorded: It was not generated now, but found in the run that goes on or is replayed.
        thought: What the model thought before it answered; None if it did not.
        log_likelihood: Natural logarithm of the probability of the request's continuation, which
            ``text`` repeats; None if the answer was generated.
        most_likely: Whether greedy decoding would have said just that.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    usage: Usage
    timings: Timings = field(repr=False)  # an assertion that shows a completion is repeatable
    prompt_hash: str
    redone: bool = False
    steered: tuple[str, ...] = ()
    steered_layers: int = 0
    recorded: bool = field(default=False, compare=False, repr=False)
    thought: str | None = None
    log_likelihood: float | None = None
    most_likely: bool = False

    @property
    def unanswered(self) -> str | None:
        """Why there is no answer, if all that was said is a thought."""
        if self.thought is None or self.text.strip():
            return None
        if self.finish_reason == "length":
            room = self.usage.generated_tokens
            tokens = "its tokens" if room is None else f"{room} tokens"
            return f"cut_off: {tokens} ended within its thought"
        return "no_answer: nothing follows its thought"
