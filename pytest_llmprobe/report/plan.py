"""What a run set out to do: its experiments, as they were collected and selected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.report.files import write_atomically

Rule: TypeAlias = Literal["observed", "significant"]


@dataclass(frozen=True)
class Bar:
    """What an experiment must reach.

    Args:
        pass_rate: Lowest pass rate, or None.
        score: Lowest mean for each named score.
        rule: ``observed``: the measured value must reach the bar. ``significant``: it fails only
            if its whole 95 % interval lies below the bar.
    """

    pass_rate: float | None = None
    score: Mapping[str, float] | None = None
    rule: Rule = "observed"

    def __post_init__(self) -> None:
        bars = dict(self.score or {})
        if self.pass_rate is not None:
            bars["pass_rate"] = self.pass_rate
            if not isinstance(self.pass_rate, int | float) or not 0 <= self.pass_rate <= 1:
                raise SettingsError(f"pass_rate={self.pass_rate!r} is not between 0 and 1")
        if not bars:
            raise SettingsError("it names no bar; give pass_rate=... or score={'name': ...}")
        for name, bar in bars.items():
            if isinstance(bar, bool) or not isinstance(bar, int | float):
                raise SettingsError(f"the bar {bar!r} of {name!r} is no number")
        if self.rule not in ("observed", "significant"):
            raise SettingsError(f"rule={self.rule!r}: use 'observed' or 'significant'")

    @classmethod
    def of(cls, options: Mapping[str, Any], where: str) -> Bar:
        """From marker arguments or a configuration table; errors begin with ``where``."""
        try:
            return cls(**options)
        except TypeError:
            known = "pass_rate, score, rule"
            raise SettingsError(
                f"{where}: unknown among {sorted(options)}; known: {known}"
            ) from None
        except (SettingsError, ValueError) as error:
            raise SettingsError(f"{where}: {error}") from None


@dataclass(frozen=True)
class ExperimentPlan:
    """One experiment's cases.

    Args:
        name: As in the report.
        function: Node id of the test function, without parameters.
        collected: Cases before -k, -m, --lf and node ids chose among them.
        ids: Node ids of the selected cases, in order.
        bar: Its gate, or None.
    """

    name: str
    function: str
    collected: int
    ids: Sequence[str]
    bar: Bar | None = None

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
        bar = data.pop("bar")
        plan[data["name"]] = ExperimentPlan(**data, bar=Bar(**bar) if bar else None)
    return plan
