"""What a run set out to do: its experiments, as they were collected and selected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.report.fidelity_bars import checked_bars
from pytest_llmprobe.report.files import write_atomically
from pytest_llmprobe.report.limits import Limits, is_number, refuse_unknown
from pytest_llmprobe.report.summary_function import SummaryFunction

Rule: TypeAlias = Literal["observed", "significant"]


@dataclass(frozen=True)
class Bar:
    """What an experiment must reach.

    Args:
        pass_rate: Lowest pass rate, or None.
        score: Limits of each named score; a number is the lowest mean, or the highest of a score
            in ``LOWER_IS_BETTER``. The names of ``TIMINGS`` are scores of every experiment.
        rule: ``observed``: the measured value must reach the bar. ``significant``: it fails only
            if its whole 95 % interval lies beyond the bar.
        allowed_drop: By how much the pass rate may fall against a baseline, or None.
        recovery: Which part of the baseline's pass rate must be left, or None.
        of_model: Given for this model by name, and not by the eval file for whichever.
        kl: Most mean divergence from a baseline's distributions, in nats a token, or None.
        top1: Least share of tokens whose likeliest one is the baseline's, or None.
        perplexity: ``max_increase``, most growth of the perplexity of the baseline's answers as a
            part of it, or None.
    """

    pass_rate: float | None = None
    score: Mapping[str, Limits] | None = None
    rule: Rule = "observed"
    allowed_drop: float | None = None
    recovery: float | None = None
    of_model: bool = False
    kl: float | None = None
    top1: float | None = None
    perplexity: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.score, Mapping | None):
            raise SettingsError(f"score={self.score!r}: give each score a bar, {{'name': 0.9}}")
        if self.score is not None:
            limits = {name: Limits.of(name, given) for name, given in self.score.items()}
            object.__setattr__(self, "score", limits)
        rates = (self.pass_rate, self.allowed_drop, self.recovery)
        if not self.score and not self.is_on_fidelity and all(rate is None for rate in rates):
            raise SettingsError(
                "it names no bar; give pass_rate=..., score={'name': ...}, allowed_drop=..., "
                "recovery=..., kl=..., top1=... or perplexity=..."
            )
        if self.pass_rate is not None and not is_number(self.pass_rate):
            raise SettingsError(f"pass_rate={self.pass_rate!r}: the bar is no number")
        if self.pass_rate is not None and not 0 <= self.pass_rate <= 1:
            raise SettingsError(f"pass_rate={self.pass_rate!r} is not between 0 and 1")
        if self.allowed_drop is not None:
            checked_drop(self.allowed_drop)
        if self.recovery is not None and not (is_number(self.recovery) and 0 < self.recovery <= 1):
            raise SettingsError(f"recovery={self.recovery!r}: give a number above 0, at most 1")
        if self.rule not in ("observed", "significant"):
            raise SettingsError(f"rule={self.rule!r}: use 'observed' or 'significant'")

    @property
    def is_on_fidelity(self) -> bool:
        """Whether a divergence from a baseline's distributions is held to a limit."""
        return bool(checked_bars(self.kl, self.top1, self.perplexity))

    @classmethod
    def of(cls, options: Mapping[str, Any], where: str) -> Bar:
        """From marker arguments or a configuration table; errors begin with ``where``."""
        refuse_unknown(options, [f.name for f in fields(cls) if f.name != "of_model"], where)
        try:
            return cls(**options)
        except SettingsError as error:
            raise SettingsError(f"{where}: {error}") from None

    @property
    def alone(self) -> Bar | None:
        """What a run is held against by itself; None if that is nothing."""
        limits = {
            name: Limits(**dict(both.alone))
            for name, both in (self.score or {}).items()
            if both.alone
        }
        if self.pass_rate is None and not limits and not self.is_on_fidelity:
            return None
        return replace(self, score=limits or None, allowed_drop=None, recovery=None)

    @property
    def against_baseline(self) -> dict[str, Any]:
        """For the report: what a comparison holds the experiment to, beside the allowed drop."""
        changes = {
            name: {"max_drop": None, "max_increase": None} | dict(limits.against_baseline)
            for name, limits in (self.score or {}).items()
            if limits.against_baseline
        }
        return {"recovery": self.recovery, "score": changes}


def checked_drop(drop: object) -> float:
    """An allowed drop of a pass rate.

    Raises:
        SettingsError: It is no number from 0 to below 1.
    """
    if not is_number(drop) or not 0 <= drop < 1:
        raise SettingsError(f"allowed_drop={drop!r}: give a number from 0 to below 1, such as 0.02")
    return float(drop)


@dataclass(frozen=True)
class ExperimentPlan:
    """One experiment's cases.

    Args:
        function: Node id of the test function, without parameters.
        collected: Cases before -k, -m, --lf and node ids chose among them.
        ids: Node ids of the selected cases, in order.
        bar: Its gate, or None.
        summary: The eval file's own function of all its records, or None.
        remarks: What its cases function wants said, such as sizes that it left out.
        generation: The marker's generation options.
        left_out: Cases that ``--llmprobe-limit`` left out before they were collected.
        allowed_drop: What its pass rate may fall by against a baseline, or None.
        against_baseline: What else a comparison holds it to, see ``Bar.against_baseline``.
        judged: Whether it may be a ground for a verdict; else it is only reported.
    """

    name: str
    function: str
    collected: int
    ids: Sequence[str]
    bar: Bar | None = None
    summary: SummaryFunction | None = None
    remarks: Sequence[str] = field(default_factory=list)
    generation: Mapping[str, Any] = field(default_factory=dict)
    left_out: int = 0
    allowed_drop: float | None = None
    against_baseline: Mapping[str, Any] = field(default_factory=dict)
    judged: bool = True

    @property
    def partial(self) -> bool:
        """Whether only some of the cases were selected."""
        return len(self.ids) < self.collected


Plan: TypeAlias = Mapping[str, ExperimentPlan]
"""Experiments by name."""


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan for another process."""
    write_atomically(path, json.dumps([asdict(experiment) for experiment in plan.values()]))


def read_plan(path: Path) -> Plan:
    """The inverse of ``write_plan``."""
    plan = {}
    for data in json.loads(path.read_text(encoding="utf-8")):
        bar, summary = data.pop("bar"), data.pop("summary")
        plan[data["name"]] = ExperimentPlan(
            **data,
            bar=Bar(**bar) if bar else None,
            summary=SummaryFunction(**summary) if summary else None,
        )
    return plan
