"""A run's needle and thread cases in the keys of the NeedleThreadingTest script's results.

The script (github.com/Dongmin88/needle_threading) writes ``results_<model>_<date>_<time>.json``:
the ``model``, a ``timestamp``, and ``tests`` with what `KEYS` names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.experiments.needle.reading import uuids_of

KEYS = ("task", "size", "trial", "duration", "is_correct", "expected", "received")
TASKS = (
    *("single_needle", "threading"),  # the script's two
    *("multiple_needles", "conditional_needles", "multi_threading", "branched_threading"),
)


def needle_results(report: Mapping[str, Any]) -> dict[str, Any]:
    """The answered needle cases of a report, in its order.

    ``duration`` is what one waited for the answer, in seconds: as if each had been asked alone
    where they were (`--llmprobe-batch-size 1`). ``received`` is the UUID that counts and not the
    whole answer: the expected one of a correct case, else the first other one, or nothing.

    Raises:
        ReportError: No needle case was answered.
    """
    answered = [
        test
        for test in report["tests"]
        if test["task"] in TASKS and test["outcome"] in ("passed", "missed")
    ]
    if not answered:
        raise ReportError(
            f"no case of {', '.join(TASKS)} was answered in this run: pytest evals/needle"
        )
    head = {"model": report["model"], "timestamp": report["timestamp"]}
    return head | {"tests": [_result(test) for test in answered]}


def results_name(report: Mapping[str, Any]) -> str:
    """The name of the file, after the last part of the model's name and the run's start (UTC)."""
    model = re.sub(r"[^A-Za-z0-9._-]+", "-", report["model"].rstrip("/").rpartition("/")[2])
    started = datetime.fromisoformat(report["timestamp"].replace("Z", "+00:00"))
    return f"results_{model.strip('-.') or 'model'}_{started:%Y%m%d_%H%M%S}.json"


def _result(test: Mapping[str, Any]) -> dict[str, Any]:
    wall = test["wall_s"]
    found = {key: test.get(key) for key in KEYS}
    return found | {
        "duration": test["duration"] if wall is None else wall,
        "expected": (expected := _lines(test["expected"])),
        "received": expected if test["is_correct"] else _other(test["received"] or "", expected),
    }


def _lines(expected: str | list[str] | None) -> str:
    return "\n".join(expected) if isinstance(expected, list) else expected or ""


def _other(answer: str, expected: str) -> str:
    said = list(dict.fromkeys(uuids_of(answer)))
    if "\n" in expected:
        return "" if "\n".join(said) == expected else "\n".join(said)
    return next((uuid for uuid in said if uuid != expected), "")
