"""How much a run may ask: requests and money, shared by all workers, never overdrawn."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_llmprobe.errors import BudgetError, SettingsError, StorageError
from pytest_llmprobe.generation import Usage

TEMPLATE_TOKENS = 256
"""What a chat template may add to a prompt, generously."""

NANO = 1e-9
"""Relative slack, for sums of floating-point numbers."""


@dataclass(frozen=True)
class Prices:
    """Price of a million tokens, in the currency of ``--llmprobe-max-cost``."""

    input: float
    output: float

    def of(self, usage: Usage) -> float:
        """What a request with this usage costs; what is not counted is left out."""
        prompt, generated = usage.prompt_tokens or 0, usage.generated_tokens or 0
        return (prompt * self.input + generated * self.output) / 1e6

    def at_most(self, prompt_bytes: int, max_new_tokens: int) -> float:
        """No request costs more: a token is at least one byte."""
        return self.of(Usage(prompt_bytes + TEMPLATE_TOKENS, max_new_tokens))


class Budget:
    """Requests and money that are left; a request is reserved before it is sent.

    Args:
        max_requests: Requests at most, repeated ones included; None for any number.
        max_cost: Money at most; None for any sum.
        prices: Needed for ``max_cost``.
        ledger: A file that several processes share; None for this process alone.
        max_s: Seconds from now on until nothing more is waited for; None for any time.

    Raises:
        SettingsError: There is a ``max_cost`` and there are no prices.
    """

    def __init__(
        self,
        max_requests: int | None = None,
        max_cost: float | None = None,
        prices: Prices | None = None,
        ledger: Path | None = None,
        max_s: float | None = None,
    ) -> None:
        if max_cost is not None and prices is None:
            raise SettingsError(
                "--llmprobe-max-cost needs the model's input_price and output_price, for a million "
                "tokens, under [tool.llmprobe.models]"
            )
        self._max_requests, self._max_cost, self._prices = max_requests, max_cost, prices
        self._ledger = ledger
        self._own: dict[str, float] = {"requests": 0, "cost": 0.0}
        self._until = None if max_s is None else time.monotonic() + max_s
        self._limited = max_requests is not None or max_cost is not None

    def left_s(self) -> float | None:
        """Seconds that are left, or None for any time."""
        return None if self._until is None else self._until - time.monotonic()

    def time_is_over(self) -> BudgetError:
        """What is told to a request that has no more time."""
        return BudgetError("--llmprobe-max-time: the run's time is over, and it stops")

    def reserve(self, prompt_bytes: int, max_new_tokens: int) -> float:
        """Set aside one request and the most that it can cost; returns that cost.

        Raises:
            BudgetError: It is not left.
        """
        if not self._limited:
            return 0.0
        cost = self._prices.at_most(prompt_bytes, max_new_tokens) if self._prices else 0.0
        with self._account() as account:
            if self._max_requests is not None and account["requests"] >= self._max_requests:
                raise BudgetError(
                    f"--llmprobe-max-requests {self._max_requests}: all are spent, the run stops"
                )
            limit = self._max_cost
            if limit is not None and account["cost"] + cost > limit * (1 + NANO):
                raise CostError(
                    f"--llmprobe-max-cost {limit:g}: {account['cost']:.4g} are spent, and the "
                    f"next request may cost {cost:.4g}; the run stops"
                )
            account["requests"] += 1
            account["cost"] += cost
        return cost

    def settle(self, reserved: float, usage: Usage) -> None:
        """Replace what was set aside by what a request did cost, where the server says it."""
        if None in (usage.prompt_tokens, usage.generated_tokens):
            return
        if self._prices is not None and self._max_cost is not None:
            with self._account() as account:
                account["cost"] += min(0.0, self._prices.of(usage) - reserved)

    @contextmanager
    def _account(self) -> Iterator[dict[str, Any]]:
        """The account, for one process at a time; written back unless an error is raised."""
        if self._ledger is None:
            yield self._own
            return
        import fcntl

        try:
            with self._ledger.open("a+", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                account = json.loads(file.read() or json.dumps(self._own))
                yield account
                file.seek(0)
                file.truncate()
                file.write(json.dumps(account))
        except OSError as error:
            raise StorageError(f"{self._ledger} cannot be written: {error.strerror}") from None


class CostError(BudgetError):
    """Too little money is left until requests under way have been settled."""
