"""Fidelity in the report: how far the candidate is from the baseline, by case and by experiment.

Displacement alone: whether the candidate is worse is `fidelity_verdict`'s, with the outcomes.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_llmprobe.statistics.divergence import FAITHFUL, Fidelity
from pytest_llmprobe.statistics.ratios import ratio_interval

WORST = 10
"""Tokens that an experiment names."""

CONTEXT = 40
"""Characters before a token that are shown with it."""

CODE = frozenset("{}[]()<>=;_\\/|#$@&*^~`")


EMPTY: Mapping[str, Any] = {
    "tokens": 0,
    **dict.fromkeys(("kl_mean", "kl_max", "top1", "first_divergence", "margin")),
    **dict.fromkeys(("base_log_probability", "log_probability")),
    **{name: [] for name in ("kl", "agrees", "pieces")},
    **dict.fromkeys(("prompt_changed", "text_bytes", "remark")),
}
"""What a record says of a case of which nothing was measured."""


def case_fidelity(found: Fidelity, pieces: Sequence[str], **said: Any) -> dict[str, Any]:
    """What the record says of one case whose tokens both models have; see docs/report.md.

    Args:
        found: The comparison.
        pieces: What each token says [T].
        said: Other fields: ``text_bytes``, ``prompt_changed``, ``remark``.
    """
    kl = found.kl
    return {
        **EMPTY,
        "tokens": len(kl),
        "kl_mean": float(kl.mean()),
        "kl_max": float(kl.max()),
        "top1": float(found.agrees.mean()),
        "first_divergence": found.first,
        "margin": found.lead,
        "base_log_probability": float(found.base.sum()),
        "log_probability": float(found.candidate.sum()),
        "kl": [float(f"{value:.3g}") for value in kl],
        "agrees": [bool(flag) for flag in found.agrees],
        "pieces": list(pieces),
        **said,
    }


def text_fidelity(base: float, candidate: float, text_bytes: int, remark: str) -> dict[str, Any]:
    """What the record says of a case whose text alone both models can be asked about."""
    return {
        **EMPTY,
        "base_log_probability": base,
        "log_probability": candidate,
        "text_bytes": text_bytes,
        "remark": remark,
    }


def not_measured(remark: str) -> dict[str, Any]:
    """What the record says of a case that cannot be measured."""
    return {**EMPTY, "remark": remark}


def token_class(piece: str) -> str:
    """``digits``, ``code``, ``punctuation`` or ``other``: what a token is of, by what it says."""
    said = piece.strip()
    if any(character.isdecimal() for character in said):
        return "digits"
    if said and not any(character.isalnum() for character in said):
        return "code" if CODE & set(said) else "punctuation"
    return "other"


def position_class(place: int) -> str:
    """``1``, ``2``, ``3-4``, ``5-8``, ...: places in the answer, in classes that double."""
    if place < 2:
        return str(place + 1)
    power = 2 ** math.ceil(math.log2(place + 1))
    return f"{power // 2 + 1}-{power}"


class FidelityColumns:
    """What is needed of the records of one experiment."""

    def __init__(self) -> None:
        self.kl: list[float] = []
        self.agrees: list[bool] = []
        self._cases: list[tuple[Mapping[str, Any], Hashable]] = []
        self._remarks: Counter[str] = Counter()
        self._cells: dict[str, dict[str, list[float]]] = {
            "position": defaultdict(list),
            "token_class": defaultdict(list),
        }
        self._worst: list[tuple[float, str, str, str]] = []
        self._texts: list[tuple[float, float, int]] = []
        self._diverged = self._changed = 0

    def add(self, name: str, found: Mapping[str, Any], cluster: Hashable) -> None:
        """Count a case; what is read of it is what ``case_fidelity`` says."""
        if remark := found.get("remark"):
            self._remarks[remark] += 1
        if found.get("text_bytes"):
            text = found["base_log_probability"], found["log_probability"], found["text_bytes"]
            self._texts.append(text)
        if not found["tokens"]:
            return
        self._cases.append((found, cluster))
        self._diverged += found["first_divergence"] is not None
        self._changed += bool(found.get("prompt_changed"))
        self.kl += found["kl"]
        self.agrees += found["agrees"]
        pieces = found["pieces"]
        for place, (kl, piece) in enumerate(zip(found["kl"], pieces, strict=True)):
            self._cells["position"][position_class(place)].append(kl)
            self._cells["token_class"][token_class(piece)].append(kl)
            if len(self._worst) < WORST or kl > self._worst[-1][0]:
                before = "".join(pieces[max(0, place - CONTEXT) : place])[-CONTEXT:]
                self._worst = sorted([*self._worst, (kl, name, before, piece)], key=_most_first)
                self._worst = self._worst[:WORST]

    def as_dict(self) -> dict[str, Any] | None:
        """For the report; None if no case was to be measured."""
        if not self._cases and not self._remarks and not self._texts:
            return None
        found: dict[str, Any] = {
            "cases": len(self._cases),
            "tokens": len(self.kl),
            "remarks": dict(sorted(self._remarks.items())),
            **dict.fromkeys(("verdict", "reason", "bits_per_byte", "kl", "top1", "perplexity")),
            **dict.fromkeys(("same", "diverged", "prompts_changed")),
            "by": {},
            "worst": [],
        }
        if self._texts:
            base, candidate, size = (sum(column) for column in zip(*self._texts, strict=True))
            bits = {"base": _bits(base, size), "candidate": _bits(candidate, size)}
            found["bits_per_byte"] = bits
        if self._cases:
            found |= self._measures()
        return found

    def _measures(self) -> dict[str, Any]:
        kl = np.array(self.kl)
        cases, clusters = zip(*self._cases, strict=True)
        counts = [case["tokens"] for case in cases]
        change = [case["base_log_probability"] - case["log_probability"] for case in cases]
        base = -sum(case["base_log_probability"] for case in cases) / len(kl)
        growth = sum(change) / len(kl)
        grown = ratio_interval(change, counts, clusters)
        top = [sum(case["agrees"]) for case in cases]
        return {
            "kl": {
                "mean": float(kl.mean()),
                "ci95": _ends(
                    ratio_interval([sum(case["kl"]) for case in cases], counts, clusters), least=0.0
                ),
                "median": float(np.median(kl)),
                "p99": float(np.quantile(kl, 0.99)),
                "max": float(kl.max()),
            },
            "top1": {
                "mean": sum(top) / len(kl),
                "ci95": _ends(ratio_interval(top, counts, clusters)),
            },
            "perplexity": {
                "base": _exp(base),
                "candidate": _exp(base + growth),
                "increase": math.expm1(min(growth, 700)),
                "ci95": _ends(grown and (math.expm1(min(x, 700)) for x in grown)),
            },
            "same": bool(kl.max() <= FAITHFUL),
            "diverged": self._diverged,
            "prompts_changed": self._changed,
            "by": {
                name: {
                    key: {"n": len(some), "kl": sum(some) / len(some)} for key, some in cell.items()
                }
                for name, cell in self._cells.items()
            },
            "worst": [
                {"kl": kl, "id": name, "before": before, "token": piece}
                for kl, name, before, piece in self._worst
                if kl > FAITHFUL
            ],
        }


def _most_first(worst: tuple[float, str, str, str]) -> tuple[float, str]:
    return -worst[0], worst[1]


def _bits(log_probability: float, size: int) -> float:
    return -log_probability / math.log(2) / size


def _exp(nats: float) -> float:
    return math.exp(min(nats, 700))


def _ends(interval: Any, least: float = -math.inf) -> list[float] | None:
    return None if interval is None else [max(least, float(end)) for end in interval]
