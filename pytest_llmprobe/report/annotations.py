"""What GitHub Actions shows beside a change: workflow commands that it reads from a job's log.

https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pytest_llmprobe.report.misses_text import failed_names
from pytest_llmprobe.report.record import bounded
from pytest_llmprobe.report.terminal import metric_name, printable

if TYPE_CHECKING:
    from pytest_llmprobe.report.comparison import Comparison

MAX_ANNOTATIONS = 10
"""GitHub shows so many errors of a step, and so many warnings."""

MAX_TITLE, MAX_ANSWER = 250, 200
"""Characters of a title and of an answer."""


def is_wanted() -> bool:
    """Whether this is a job of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def github_annotations(
    experiments: Sequence[Mapping[str, Any]],
    checks: Sequence[Mapping[str, Any]],
    comparison: Comparison | None,
) -> list[str]:
    """Errors for failed checks and for cases without a result, then lost cases.

    A case that passed in the earlier run and misses now is an error if its experiment failed, else
    a warning.
    """
    errors = [
        _command("error", f"llmprobe: {check['experiment']}: {metric_name(check)}", check["reason"])
        for check in checks
        if check["verdict"] == "FAIL"
    ]
    for experiment in experiments:
        counts = {
            "in error": experiment["errors"],
            "selected but never ran": experiment["selected"] - experiment["reported"],
        }
        if said := ", ".join(f"{count} {what}" for what, count in counts.items() if count):
            title = f"llmprobe: {experiment['name']}: cases without a result"
            errors.append(_command("error", title, said))
    failed, warnings = failed_names(checks), list[str]()
    for compared in comparison.experiments if comparison else ():
        for flip in compared.lost:
            before, now = (
                "no answer" if text is None else repr(bounded(text, MAX_ANSWER))
                for text in (flip.first, flip.second)
            )
            is_error = compared.name in failed
            said = f"{flip.id}: {before} -> {now}"
            title = f"llmprobe: {compared.name}: lost case"
            command = _command("error" if is_error else "warning", title, said)
            (errors if is_error else warnings).append(command)
    return errors[:MAX_ANNOTATIONS] + warnings[:MAX_ANNOTATIONS]


def _command(level: Literal["error", "warning"], title: str, message: str) -> str:
    shown = bounded(printable(title), MAX_TITLE) or ""
    return f"::{level} title={_property(shown)}::{_data(printable(message))}"


def _data(text: str) -> str:
    """Escaped as GitHub's runner reads the text of a command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Escaped as it reads a property, which ends at a colon or a comma."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
