"""What a look at an answer has in common, be the model in this process or behind a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmprobe.statistics.divergence import Distributions

if TYPE_CHECKING:
    from pytest_llmprobe.generation import Request

STEERED = "steered: the pass over answers does not steer"
NO_BASE = "the baseline kept no distributions of its answer"

SERVED = "behind a server"
"""In place of a tokenizer's hash: whether the tokens are the same, each answer tells."""


def is_steered(request: Request) -> bool:
    """Whether attention is moved where the request is answered."""
    return request.steer is not None and request.steer.delta != 0


def cut(found: Distributions, count: int) -> Distributions:
    """Those of the first tokens."""
    return Distributions(
        found.ids[:count], found.codes[:count], found.rest[:count], found.answer[:count]
    )
