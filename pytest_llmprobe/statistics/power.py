"""How likely the exact McNemar test or a bar finds a loss, and what they most likely find."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_llmprobe.statistics.resampling import Floats

Counts: TypeAlias = npt.NDArray[np.int64]

CELLS = 1_000_000
"""Probabilities that are in memory at once."""


def minimum_detectable_change(
    n: int, discordance: float = 0.0, level: float = 0.05, power: float = 0.8
) -> float | None:
    """The smallest true change of a pass rate that the exact test would most likely have found.

    Exact search: the flips of ``n`` pairs are binomial with rate ``discordance``, the lost ones
    among them binomial with (1 + change / discordance) / 2, and ``mcnemar`` is applied to each
    outcome. A change above the discordance is taken as flips in one direction only. The ``level``
    is 0.05 / k for one of k experiments under Holm's correction, ``power`` the wanted probability.
    The change of the rate is rounded up to 0.0001; None if ``n`` pairs can show none.
    """
    low, high = 0, 10_000
    if n < 1 or mcnemar_power(n, 1.0, 1.0, level) < power:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        change = middle / 10_000
        enough = mcnemar_power(n, change, max(discordance, change), level) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high / 10_000


def bar_power(n: int, bar: float, rate: float) -> float:
    """The probability that a model of this true pass rate passes fewer than ``bar`` of ``n`` cases.

    At the rate that the bar was measured at it is the chance of a false alarm on other cases.
    """
    fewest = math.ceil(bar * n - 1e-9)
    return float(_binomial(np.array([n]), rate, np.array([fewest - 1]))[0].sum()) if fewest else 0.0


def found_by_bar(n: int, bar: float, power: float = 0.8) -> float | None:
    """The highest true pass rate that a bar on ``n`` cases fails with this probability.

    Rounded down to 0.001; None if it fails no model so often.
    """
    low, high = 0, 1000
    if bar_power(n, bar, 0.0) < power:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if bar_power(n, bar, middle / 1000) >= power else (low, middle)
    return low / 1000


def mcnemar_power(n: int, change: float, discordance: float, level: float = 0.05) -> float:
    """The probability that the exact test on ``n`` pairs finds a true change of a pass rate.

    The change is absolute, and at most ``discordance``: the probability, above 0, of a flip.
    """
    spread = 9 * math.sqrt(n * discordance * (1 - discordance)) + 9
    fewest = max(0, math.floor(n * discordance - spread))
    most = min(n, math.ceil(n * discordance + spread))
    weights = _binomial(np.array([n]), discordance, np.array([most]))[0][fewest:]
    flips = np.arange(fewest, most + 1)
    rarer = np.array([_significant(int(count), level) for count in flips]) - 1
    flips, weights, rarer = (column[rarer >= 0] for column in (flips, weights, rarer))
    if not len(flips):
        return 0.0
    one_way = (1 + change / discordance) / 2
    found, rows = 0.0, max(1, CELLS // (int(rarer.max()) + 1))
    for start in range(0, len(flips), rows):
        part = slice(start, start + rows)
        for share in (one_way, 1 - one_way):
            tails = _binomial(flips[part], share, rarer[part]).sum(axis=1)
            found += float(weights[part] @ tails)
    return min(1.0, found)


@lru_cache(maxsize=100_000)
def _significant(flips: int, level: float) -> int:
    """How many counts of the rarer flips, from 0 on, the two-sided test finds significant."""
    fair = 2 * np.cumsum(_binomial(np.array([flips]), 0.5, np.array([flips // 2])))
    return int(np.count_nonzero(fair < level))


@lru_cache(maxsize=4)
def _log_factorials(up_to: int) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, up_to + 1)))])


def _binomial(n: Counts, p: float, most: Counts) -> Floats:
    """Probabilities of 0 to ``most`` successes in ``n``, a row for each; 0 beyond, (rows, k)."""
    k = np.arange(int(most.max()) + 1)
    beyond = k > most[:, None]
    if p in (0.0, 1.0):
        return np.where(beyond, 0.0, k == n[:, None] * p)
    logs = _log_factorials(1 << int(n.max()).bit_length())
    left = np.maximum(n[:, None] - k, 0)
    ways = logs[n][:, None] - logs[k] - logs[left]
    found = np.exp(ways + k * math.log(p) + left * math.log1p(-p))
    return np.where(beyond, 0.0, found)
