"""How a server is asked: what the user may choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

CONCURRENCY = 16
TIMEOUT_S = 600.0

CAPABILITIES = {
    "generation": True,
    "chat_template": False,
    "offsets": False,
    "left_padding": False,
    "cached_continuation": False,
    "packed_rows": False,
    "hidden_states": 0,
}
"""As of a model in this process: what it is not known to do, no evaluation may count on."""


@dataclass(frozen=True)
class EndpointOptions:
    """How a server is asked.

    Args:
        concurrency: Requests under way at a time, of all workers together.
        timeout_s: Seconds that one attempt may take.
        stream: Ask for streamed answers.
        max_requests: Requests of the run at most, repeated ones included; None for any number.
        max_cost: Money of the run at most, in the currency of the model's prices.
        max_time: Seconds of the run at most.
        options: What the body of every request holds besides.
    """

    concurrency: int = CONCURRENCY
    timeout_s: float = TIMEOUT_S
    stream: bool = False
    max_requests: int | None = None
    max_cost: float | None = None
    max_time: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For the report's ``config``."""
        return asdict(self)
