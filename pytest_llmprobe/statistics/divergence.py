"""Divergence of a candidate's next-token distributions from a baseline's, on the same text.

Of the baseline the k likeliest tokens of each place are known and the mass of all others, which are
one bucket: what is computed is at most the divergence of the whole distributions (the data
processing inequality, Cover and Thomas 2006, Elements of Information Theory, theorem 2.8.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

STEPS = 2048
"""Log-probabilities are kept in steps of 1/2048 down to -32, 16 bits each: float16 would be coarser
wherever they are below -1, and the model's divergence from itself a hundred times as large."""

TOP = 64
"""Tokens of each place that are kept."""

NOTHING = 2**16 - 1
"""Code of a token that is not there: e^-32."""

LEAST = 1e-12
"""Mass of all others where it is none by what is told of the rest."""

FAITHFUL = 1e-6
"""A divergence up to this is none: what the shape of a pass turns in float32 stays below it."""

Floats: TypeAlias = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Distributions:
    """Next-token distributions at the T tokens of an answer, the k likeliest tokens of each.

    Args:
        ids: The likeliest tokens, in falling order [T, k].
        codes: Their log-probabilities, see ``coded`` [T, k].
        rest: Log of the mass of all others; -inf if there are none [T].
        answer: Log-probability of the answer's own token [T].
    """

    ids: npt.NDArray[np.unsignedinteger[Any]]
    codes: npt.NDArray[np.uint16]
    rest: npt.NDArray[np.float32]
    answer: npt.NDArray[np.float32]

    @property
    def k(self) -> int:
        """Tokens of each place."""
        return int(self.ids.shape[1])

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a candidate gives to the tokens that a baseline's ``Distributions`` name.

    Args:
        log_probability: Of the baseline's likeliest tokens [T, k].
        rest: Log of the mass of all others [T].
        answer: Log-probability of the answer's own token [T].
        agrees: Whether the baseline's likeliest token is the candidate's, too [T].
        lead: By how much the candidate's likeliest token leads before the answer's [T]; 0 if it is
            the same.
    """

    log_probability: npt.NDArray[np.float32]
    rest: npt.NDArray[np.float32]
    answer: npt.NDArray[np.float32]
    agrees: npt.NDArray[np.bool_]
    lead: npt.NDArray[np.float32]


def coded(log_probability: Floats) -> npt.NDArray[np.uint16]:
    """Log-probabilities in 16 bits: how many steps below 0, at most 65,535."""
    return np.clip(np.rint(-STEPS * log_probability), 0, NOTHING).astype(np.uint16)


def kl_divergence(base: Distributions, candidate: Seen) -> npt.NDArray[np.float64]:
    """Kullback-Leibler divergence of the candidate from the baseline at each token [T], in nats.

    D(p || q) = sum of p (log p - log q) over the k tokens and the bucket of others (Kullback and
    Leibler 1951). The candidate's numbers are rounded as the baseline's were, and both made to sum
    to 1: equal logits give exactly 0, and rounding adds about 1e-8 else.
    """
    kept = np.concatenate([base.codes / -STEPS, base.rest[:, None]], axis=1)
    rounded = np.rint(candidate.log_probability.astype(np.float64) * STEPS) / STEPS
    found = np.concatenate([rounded, candidate.rest[:, None]], axis=1)
    p, q = _normalised(kept), _normalised(found)
    with np.errstate(invalid="ignore"):  # -inf - -inf, of weight 0
        terms = np.where(p > -np.inf, np.exp(p) * (p - q), 0.0)
    divergence: npt.NDArray[np.float64] = np.maximum(terms.sum(axis=1), 0.0)
    return divergence


def coarsened(
    base: Distributions, tokens: Sequence[int], known: Sequence[Mapping[int, float]]
) -> tuple[Distributions, Seen]:
    """Both models on the tokens that both tell of, all others being one bucket for both.

    Args:
        base: What the baseline gave at the T tokens of an answer.
        tokens: The answer's tokens, whose log-probabilities both tell [T].
        known: What the candidate told at each of them: log-probabilities by token [T].
    """
    shape = len(base), base.k + 1
    ids, codes = np.zeros(shape, np.uint32), np.full(shape, NOTHING, np.uint16)
    seen, rests = np.full(shape, NOTHING / -STEPS, np.float32), np.zeros((2, len(base)))
    for place, (token, told) in enumerate(zip(tokens, known, strict=True)):
        its = dict(
            zip(base.ids[place].tolist(), (base.codes[place] / -STEPS).tolist(), strict=True)
        )
        others = [math.exp(base.rest[place])]
        if token not in its:
            its[token] = float(base.answer[place])
            others.append(-math.exp(its[token]))
        both = [one for one in its if one in told]
        others += [math.exp(value) for one, value in its.items() if one not in told]
        ids[place, : len(both)] = both
        codes[place, : len(both)] = coded(np.array([its[one] for one in both]))
        seen[place, : len(both)] = [told[one] for one in both]
        theirs = 1.0 - math.fsum(math.exp(told[one]) for one in both)
        rests[:, place] = math.fsum(others), theirs
    base_rest, rest = np.log(np.maximum(rests, LEAST)).astype(np.float32)
    own = np.array([told[token] for token, told in zip(tokens, known, strict=True)], np.float32)
    most = np.array([max(told.values()) for told in known], np.float32)
    first = np.array(
        [told.get(int(one), -np.inf) for one, told in zip(base.ids[:, 0], known, strict=True)],
        np.float32,
    )
    return (
        Distributions(ids, codes, base_rest, base.answer),
        Seen(seen, rest, own, first >= most, most - own),
    )


def _normalised(logs: Floats) -> npt.NDArray[np.float64]:
    top = logs.max(axis=1, keepdims=True).astype(np.float64)
    shifted = logs - top
    normal: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normal


@dataclass(frozen=True, eq=False)
class Fidelity:
    """A candidate beside its baseline at the T tokens of an answer.

    Args:
        kl: Divergence from the baseline's distribution [T], in nats; empty where the models do not
            have the same tokens.
        agrees: Whether both have the same likeliest token [T].
        base: Log-probability of the answer's tokens to the baseline [T].
        candidate: To the candidate; of its own tokens where they are not the baseline's.
        first: The first token that is not the candidate's likeliest; None if all are.
        lead: By how much another token leads there, as a difference of logits.
    """

    kl: npt.NDArray[np.float64]
    agrees: npt.NDArray[np.bool_]
    base: npt.NDArray[np.float64]
    candidate: npt.NDArray[np.float64]
    first: int | None = None
    lead: float | None = None


def fidelity(base: Distributions, candidate: Seen) -> Fidelity:
    """Hold a candidate's pass over a baseline's answer against what the baseline gave."""
    left = np.flatnonzero(candidate.lead > 0)
    return Fidelity(
        kl_divergence(base, candidate),
        candidate.agrees,
        base.answer.astype(np.float64),
        candidate.answer.astype(np.float64),
        int(left[0]) if len(left) else None,
        float(candidate.lead[left[0]]) if len(left) else None,
    )
