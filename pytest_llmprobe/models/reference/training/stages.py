"""The stages of a training run: what each one practises, for how long and how fast."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pytest_llmprobe.models.reference.training import data, retrieval

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
    """Steps with one learning rate schedule and one mix.

    Args:
        steps: How many.
        mix: How often each family is drawn.
        lengths: Of the rows.
        end: Weight of the end of an answer.
        counted: The same, where only a count can tell the end: of a repeated word.
        going_on: How many of the last spaces between repeated words weigh as much as their end.
            A weight of the end alone makes the model stop a word too early.
        rate: The highest learning rate, as a share of the full one.
        texts: Whether texts are shown too, known and fresh ones.
        kept: How much of the way is kept that the weights go in this stage: in the end they are
            averaged with those from before it.
    """

    steps: int
    mix: Mapping[data.Family, float]
    lengths: Lengths = GROWING
    end: float = 2.0
    counted: float = 8.0
    going_on: int = 0
    rate: float = 1.0
    texts: bool = True
    kept: float = 1.0

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
    Stage(
        800,
        {
            retrieval.single: 0.07,
            retrieval.threads: 0.09,
            retrieval.multiple: 0.15,
            retrieval.multi_thread: 0.06,
            retrieval.conditional: 0.06,
            retrieval.branched: 0.03,
            data.text_needles: 0.04,
            data.json_object: 0.17,
            data.summary: 0.05,
            data.repeat: 0.28,
        },
        MIXED,
        going_on=2,
        rate=0.5,
    ),
    Stage(
        160,
        {
            retrieval.single: 0.03,
            retrieval.threads: 0.05,
            retrieval.multiple: 0.08,
            retrieval.multi_thread: 0.02,
            retrieval.conditional: 0.02,
            retrieval.branched: 0.01,
            data.text_needles: 0.02,
            data.json_object: 0.25,
            data.summary: 0.40,
            data.repeat: 0.12,
        },
        MIXED,
        going_on=2,
        rate=0.25,
        texts=False,
        kept=0.35,
    ),
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
