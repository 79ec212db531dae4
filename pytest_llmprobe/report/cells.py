"""What the report says of an experiment in one row, for pages that people read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADER = ("experiment", "n", "pass rate [95% CI]", "chance", "errors", "gate", "tokens/s")


def cells(experiment: Mapping[str, Any]) -> list[str]:
    """One row under ``HEADER`` of an entry of the report's ``experiments``."""
    rate, interval = experiment["pass_rate"], experiment["ci95_clustered"]
    chance, speed = experiment["chance"], experiment["timings"]["tokens_per_s"]
    return [
        experiment["name"],
        str(experiment["n"]),
        "-" if rate is None else f"{rate:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]",
        "-" if chance is None else f"{chance:.3f}",
        str(experiment["errors"] or "-"),
        ", ".join(_check(check) for check in experiment["gate"]) or "-",
        "-" if speed is None else f"{speed:,.0f}",
    ]


def _check(check: Mapping[str, Any]) -> str:
    metric = "" if check["metric"] == "pass_rate" else f"{check['metric']} "
    return f"{check['verdict']} ({metric}>= {check['bar']:g})"
