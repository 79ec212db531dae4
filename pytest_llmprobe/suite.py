"""What the user asked of all evaluations: profile, seed, trials."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass


def seed_of(*key: str | int | float | None) -> int:
    """A 63-bit seed that depends on every part of ``key`` and on nothing else.

    The same on every machine and in every process, unlike ``hash()``, which is salted.
    """
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Suite:
    """Passed to every cases function.

    Args:
        profile: ``smoke``, ``ci`` or ``full``: which grid to build.
        seed: Seed of all cases.
        trials: Repeats per cell of the grid, or None for the evaluation's own number.
    """

    profile: str = "ci"
    seed: int = 0
    trials: int | None = None

    def random(self, *key: str | int | float) -> random.Random:
        """A generator seeded from the suite's seed and ``key`` (experiment, case or group id)."""
        return random.Random(seed_of(self.seed, *key))
