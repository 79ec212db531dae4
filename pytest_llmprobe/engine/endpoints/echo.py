"""Log-probabilities of a text that a server is asked to repeat: echo of /completions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.case import Prompt, RawPrompt
from pytest_llmprobe.engine.backend import Generated
from pytest_llmprobe.engine.endpoints.wire import found, usage_of
from pytest_llmprobe.errors import (
    InvalidLogitsError,
    NotInProcessError,
    UnsupportedError,
)
from pytest_llmprobe.generation import Usage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

IGNORED = (
    "the server repeats no prompt with log-probabilities (echo and logprobs of /completions, as "
    "vLLM has them): load the model in this process"
)


@dataclass(frozen=True)
class EchoedText:
    """How likely a served model found each token of a text of T tokens, but for the first.

    Args:
        values: Natural logarithm of each token's probability, given those before it: T - 1.
        usage: What the server counts.
    """

    values: tuple[float, ...]
    usage: Usage

    @property
    def log_probability(self) -> npt.NDArray[np.float64]:
        """The values as an array [T - 1]."""
        import numpy as np

        return np.array(self.values, dtype=np.float64)

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Needs the whole distribution of each token, which no server sends.

        Raises:
            NotInProcessError: Always.
        """
        raise NotInProcessError(
            "min-k %++ needs the model's whole distribution: load the model in this process"
        )

    variance = mean


def sent_of(
    encode: Callable[[Prompt], bytes], prompt: Prompt, continuation: str
) -> tuple[bytes, bytes]:
    """What a request says of a raw text with what follows it, and the end that is scored.

    Raises:
        UnsupportedError: It is no raw text, or has nothing before the continuation.
    """
    if not isinstance(prompt, RawPrompt) or prompt.ids:
        raise UnsupportedError("a server scores what follows a raw text only: use RawPrompt")
    if not prompt.text.strip():
        raise UnsupportedError("a server gives a text's first token no log-probability")
    moved = prompt.text[len(prompt.text.rstrip()) :]
    return encode(RawPrompt(prompt.text + continuation)), (moved + continuation).encode()


def read_continuation(response: Mapping[str, Any], continuation: str) -> tuple[Generated, Usage]:
    """The log-probabilities of the tokens that a continuation at the end of the prompt is made of.

    A token that it shares with the text before it is counted: it would not be there without it.

    Raises:
        UnsupportedError: The server ignores what it was asked, or cuts the text unknown to us.
        InvalidLogitsError: A number is none.
    """
    sent = found(response, "choices", 0, "logprobs")
    tokens, values = found(sent, "tokens"), found(sent, "token_logprobs")
    usage = usage_of(*(found(response, "usage", f"{of}_tokens") for of in ("prompt", "completion")))
    lists, size = isinstance(tokens, list) and isinstance(values, list), usage.prompt_tokens
    if size is None or not lists or min(len(tokens), len(values)) < size:
        raise UnsupportedError(IGNORED)
    tokens, count, left = tokens[:size], 0, len(continuation)
    if not "".join(map(str, tokens)).endswith(continuation):
        raise UnsupportedError(
            "the server's tokens do not spell the text that it was sent, so what is the choice's "
            "cannot be told: load the model in this process"
        )
    while left > 0:
        count += 1
        left -= len(tokens[-count])
    known = values[size - count : size]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in known):
        raise InvalidLogitsError("the server sent a log-probability that is no number")
    tops = found(sent, "top_logprobs")
    tops = tops if isinstance(tops, list) else []
    greedy = all(
        isinstance(top, Mapping) and top and max(top.values()) <= value
        for top, value in zip(tops[size - count :], known, strict=False)
    )
    answer = Generated(
        continuation,
        (),
        "stop",
        usage=Usage(size, 0),
        log_likelihood=min(math.fsum(known), 0.0),
        most_likely=bool(tops) and greedy,
    )
    return answer, usage


def read_echo(response: Mapping[str, Any]) -> EchoedText:
    """The log-probabilities of the prompt's tokens; that of the generated one is left out.

    Raises:
        UnsupportedError: The server ignores what it was asked.
        InvalidLogitsError: A number is none.
    """
    choice = found(response, "choices", 0)
    values = found(choice, "logprobs", "token_logprobs")
    usage = usage_of(*(found(response, "usage", f"{of}_tokens") for of in ("prompt", "completion")))
    size = usage.prompt_tokens
    if not isinstance(values, list) or size is None or len(values) < size:
        raise UnsupportedError(IGNORED)
    known = values[1:size]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in known):
        raise InvalidLogitsError("the server sent a log-probability that is no number")
    return EchoedText(tuple(map(float, known)), usage)
