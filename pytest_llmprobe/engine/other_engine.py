"""Another program's engine generates from the same weights; what it cannot do, the model does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from pytest_llmprobe.engine.backend import Arrived, Generated, OnTokens
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.engine.sampling import has_penalties
from pytest_llmprobe.errors import RequestError
from pytest_llmprobe.models.loading import LoadedModel

Said: TypeAlias = Callable[[int, Sequence[int]], bool]
"""Called with a row's place in its batch and its next token ids; whether its answer is over."""


class OtherEngine(Protocol):
    """A program that continues token ids greedily.

    Attributes:
        facts: Its name and version, and how it computes: what answers depend on, in JSON types.
        batch_tokens: Rows times length of a batch at most; None: as for the model itself.
    """

    facts: dict[str, Any]
    batch_tokens: int | None

    def run(self, rows: Sequence[Row], said: Said) -> None:
        """Continue each row until ``said`` tells that it is over, or its room is full."""


class OtherEngineBackend(FastBackend):
    """Greedy answers are the other engine's, cut where this package's rules end them.

    Sampling, penalties, steering and given continuations are this model's own matter: their rows
    take the path that they take without the other engine.
    """

    def __init__(self, loaded: LoadedModel, other: OtherEngine, drafts: bool = True) -> None:
        super().__init__(loaded, drafts)
        self.other = other

    @property
    def info(self) -> dict[str, Any]:
        """What the model says of itself, and who generates."""
        return super().info | {"engine": dict(self.other.facts)}

    @property
    def name(self) -> str:
        """The other engine's name and version."""
        return f"{self.other.facts['name']} {self.other.facts['version']}"

    def together(
        self, rows: Sequence[Row], on_tokens: OnTokens, arrived: Arrived
    ) -> list[Generated | RequestError]:
        """One batch, or two if some of its rows are the model's own."""
        own = [row for row in rows if _is_own(row)]
        found: dict[int, Generated | RequestError] = {}
        if own:
            answers = super().together(own, on_tokens, arrived)
            found.update(zip((row.index for row in own), answers, strict=True))
        others = [row for row in rows if not _is_own(row)]
        if others:
            found |= self._elsewhere(others, on_tokens, arrived)
        return [found[row.index] for row in rows]

    def _elsewhere(
        self, rows: Sequence[Row], on_tokens: OnTokens, arrived: Arrived
    ) -> dict[int, Generated | RequestError]:
        readers = [self.endings.reader(row) for row in rows]
        found: dict[int, Generated | RequestError] = {}

        def said(place: int, tokens: Sequence[int]) -> bool:
            reader, row = readers[place], rows[place]
            taken = 0
            for token in tokens:
                if reader.ended is None:
                    reader.add(token)
                    taken += 1
            on_tokens(taken)
            if reader.ended is not None and row.index not in found:
                found[row.index] = answer = reader.generated()
                arrived(row, answer)
            return reader.ended is not None

        self.other.run(rows, said)
        gave_up = f"{self.name} did not finish this answer: give it more memory, or shorter cases"
        return {row.index: RequestError(gave_up) for row in rows} | found


def _is_own(row: Row) -> bool:
    config = row.config
    return row.steering is not None or config.temperature > 0 or has_penalties(config)
