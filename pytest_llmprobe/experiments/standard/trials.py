"""Several answers to one question: pass@k and the majority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from math import comb
from typing import Any, Protocol


class Trial(Protocol):
    """What is read of the record of one answer."""

    @property
    def outcome(self) -> str:
        """``passed``, ``missed``, ``error`` or ``skipped``."""

    @property
    def is_correct(self) -> bool:
        """Whether it passed."""

    @property
    def params(self) -> Mapping[str, Any]:
        """Metadata of its case, of which ``row`` names the question."""

    @property
    def group(self) -> str | None:
        """What names the question where ``row`` does not."""

    @property
    def received(self) -> str | None:
        """The answer's text."""


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Chance that at least one of ``k`` answers out of ``n`` is right, without bias.

    1 - C(n - c, k) / C(n, k): Chen et al. 2021, arXiv 2107.03374, equation 1.

    Raises:
        ValueError: Not 0 <= correct <= n, or not 1 <= k <= n.
    """
    if not (0 <= correct <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} of {correct} right answers out of {n}")
    return 1 - comb(n - correct, k) / comb(n, k)


def over_trials(
    records: Sequence[Trial], read: Callable[[Trial], Hashable | None] | None = None
) -> dict[str, Any]:
    """pass@1, 2, 4 ... and the majority of each question's trials; empty if each was asked once.

    Args:
        records: Of one experiment; those of one ``params["row"]`` are trials of one question.
        read: What an answer comes to, equal for answers that say the same; None for one that says
            nothing, which has no vote. Without it there is no majority.
    """
    trials: dict[Any, list[Trial]] = {}
    for record in records:
        if record.outcome in ("passed", "missed"):
            trials.setdefault(record.params.get("row", record.group), []).append(record)
    least = min(map(len, trials.values()), default=0)
    if least < 2:
        return {}
    found: dict[str, Any] = {"questions": len(trials), "trials": least}
    k = 1
    while k <= least:
        each = [pass_at_k(len(t), sum(r.is_correct for r in t), k) for t in trials.values()]
        found[f"pass@{k}"] = sum(each) / len(each)
        k *= 2
    if read is not None:
        found[f"majority@{least}"] = sum(_majority(t, read) for t in trials.values()) / len(trials)
    return found


def _majority(trials: Sequence[Trial], read: Callable[[Trial], Hashable | None]) -> bool:
    """Whether the answer that most trials give is right; of equals the one that was said first."""
    said = [read(record) for record in trials]
    votes = Counter(answer for answer in said if answer is not None)
    if not votes:
        return False
    chosen = votes.most_common(1)[0][0]
    return any(r.is_correct for r, answer in zip(trials, said, strict=True) if answer == chosen)
