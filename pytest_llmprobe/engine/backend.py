"""What the engine needs from something that generates text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from pytest_llmprobe.case import Prompt
from pytest_llmprobe.engine.planning import Row, RowSteering
from pytest_llmprobe.errors import RequestError
from pytest_llmprobe.generation import Steer, Usage

NO_LIKELIHOODS = "what answers here cannot tell how likely a given text is"

OnTokens: TypeAlias = Callable[[int], None]
"""Called while a batch runs with the number of tokens that were just generated."""

Arrived: TypeAlias = Callable[[Row, "Generated"], None]
"""Called while a batch runs with the answer of a row that has ended."""


@dataclass(frozen=True)
class Generated:
    """One row's answer.

    Args:
        text: Cut before a stop string, without special tokens and without the thought.
        token_ids: With the end-of-sequence token.
        finish_reason: What ended it.
        redone: It was a close call in its batch and has been decided on its own.
        steered_layers: Layers in which the prompt's last token sees steered ones.
        usage: Token counts as a server reports them; None: those of the ids.
        latency_s: Seconds until the whole answer was there, where a row has its own.
        first_token_s: Seconds until its first token, if that is known.
        wall_s: Seconds from the batch's beginning until the answer was complete; None: its end.
        thought: What the model thought before it answered, or None.
        log_likelihood: Of a row's continuation, or None.
        most_likely: Whether greedy decoding would have said the continuation.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    redone: bool = False
    steered_layers: int = 0
    usage: Usage | None = None
    latency_s: float | None = None
    first_token_s: float | None = None
    wall_s: float | None = None
    thought: str | None = None
    log_likelihood: float | None = None
    most_likely: bool = False


@runtime_checkable
class Backend(Protocol):
    """Encodes prompts and generates one planned batch at a time.

    One that shares prefixes in another way, and takes batches of several configs, has an attribute
    ``copies_prefixes`` that is True.

    One whose prompt and answer have a context each, not one together, says so by an attribute
    ``context_is_shared`` that is False.

    Attributes:
        context_length: Most tokens of prompt and answer together, or None if there is no limit.
        max_batch_size: Most rows that this model computes right in one batch; None for any number.
        shares_prefixes: Whether a batch stores a prefix that its prompts share only once, whatever
            their configs. Without it a batch has one config.
    """

    context_length: int | None = None
    max_batch_size: int | None = None
    shares_prefixes: bool = False
    thinks: bool = False

    @property
    def info(self) -> dict[str, Any]:
        """What the report says about the model, in built-in types."""

    def encode(self, prompt: Prompt) -> Sequence[int]:
        """Token ids of a prompt, chat template applied, with exactly one BOS if the model has it.

        For a server, the bytes that it is sent of the prompt.

        Raises:
            RequestError: The prompt cannot be rendered.
        """

    def steering(self, prompt: Prompt, steer: Steer) -> RowSteering:
        """What steers a prompt's row; asked for a Delta that is not 0.

        Raises:
            SteeringError: This model cannot be steered, or not to these spans; says why.
            CasesError: The prompt does not hold a span, or holds it more than once.
            SettingsError: The model has no such layers.
        """

    def generate(self, rows: Sequence[Row], on_tokens: OnTokens) -> list[Generated | RequestError]:
        """Answers in the order of ``rows``, which are of one kind; a row's failure is its own."""

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether ``error`` means that a smaller batch may succeed."""
        return False

    def release_memory(self) -> None:
        """Give back what a failed batch holds."""
        return


@runtime_checkable
class AnswersRowByRow(Protocol):
    """A backend that tells a row's answer when the row ends, which may be long before its batch."""

    def receive(
        self, rows: Sequence[Row], on_tokens: OnTokens, arrived: Arrived
    ) -> list[Generated | RequestError]:
        """As ``Backend.generate``; ``arrived`` may be called in another thread.

        Rows that end with the batch need not be told, and one may be told twice.
        """


@runtime_checkable
class ScoresContinuations(Protocol):
    """A backend that can tell how likely a given continuation is, and need not generate it."""

    def encode_continuation(
        self, prompt: Prompt, continuation: str
    ) -> tuple[Sequence[int], Sequence[int]]:
        """Token ids of a prompt and of what follows it, cut as ``PromptEncoder.pair`` does.

        For a server, the bytes that it is sent of the prompt, and those of the continuation.

        Raises:
            RequestError: The prompt cannot be rendered, or nothing follows it.
        """
