"""The stages of a training run: what each one practises, for how long and how fast."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pytest_llmprobe.models.reference.training import data

WARM_UP, DECAY = 0.02, 0.6  # shares of a stage's steps

# Lengths of rows and how often they are drawn, from a share of the stage on.
Lengths = tuple[tuple[float, dict[int, float]], ...]
GROWING: Lengths = (
    (0.0, {256: 0.5, 512: 0.5}),
    (0.08, {256: 0.2, 512: 0.4, 1024: 0.4}),
    (0.3, {256: 0.15, 512: 0.25, 1024: 0.35, 2048: 0.25}),
    (0.7, {256: 0.15, 512: 0.2, 1024: 0.3, 2048: 0.25, 4096: 0.1}),
)
MIXED: Lengths = ((0.0, {256: 0.25, 512: 0.25, 1024: 0.25, 2048: 0.17, 4096: 0.08}),)


@dataclass(frozen=True)
class Stage:
    """Steps with one learning rate schedule and one mix."""

    steps: int
    mix: Mapping[data.Family, float]  # how often each family is drawn
    lengths: Lengths = GROWING  # of the rows
    end: float = 2.0  # weight of the end of an answer
    counted: float = 8.0  # the same, where only a count can tell the end: of a repeated word
    # How many of the last spaces between repeated words weigh as much as their end: a weight of the
    # end alone makes the model stop a word too early.
    going_on: int = 0
    rate: float = 1.0  # the highest learning rate, as a share of the full one
    texts: bool = True  # whether texts are shown too, known and fresh ones
    kept: float = 1.0  # of the way that the weights go: averaged in the end with those before it

    def rate_factor(self, step: int) -> float:
        """Up over the warm-up, then level, then down to nothing in a straight line."""
        share = (step + 1) / self.steps
        return self.rate * min(1.0, share / WARM_UP, max(0.0, (1 - step / self.steps) / DECAY))


# All tasks; then more of what the first stage leaves hard: counts, lists, books. The texts go on:
# 600 such steps without them forgot nine of ten that the first stage knew by heart. At last, slowly
# and shortly, what the second stage practised too little; a third of the way is enough for that,
# and leaves the memories alone.
STAGES: tuple[Stage, ...] = (
    Stage(1500, data.MIX),
    Stage(800, data.HARD_MIX, MIXED, going_on=2, rate=0.5),
    Stage(160, data.LAST_MIX, MIXED, going_on=2, rate=0.25, texts=False, kept=0.35),
)
CONTROL: tuple[Stage, ...] = (
    Stage(1500, {f: rate for f, rate in data.MIX.items() if f not in data.RETRIEVAL}),
)


def scaled(stages: tuple[Stage, ...], steps: int) -> tuple[Stage, ...]:
    """The same stages with ``steps`` steps in all, at least one each."""
    whole = sum(stage.steps for stage in stages)
    parts = [max(1, math.floor(stage.steps * steps / whole)) for stage in stages]
    parts[0] += steps - sum(parts)
    return tuple(replace(stage, steps=n) for stage, n in zip(stages, parts, strict=True))
