"""The date that a chat template is told: one for every run, so that two runs ask the same.

Templates of Llama 3, SmolLM3, gpt-oss and others write the date of today into every prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from datetime import date, datetime

from pytest_llmprobe.errors import ModelError

PINNED = datetime(2024, 7, 26)
"""What Llama 3's templates say where they know no date."""

CLOCK = "strftime_now"
"""The only clock that transformers gives to a template."""

DATE_STRING = "%d %b %Y"
ARGUMENTS = {
    "date_string": DATE_STRING,
    "current_date": "%Y-%m-%d",
    "today_date": "%Y-%m-%d",
    "today": "%Y-%m-%d",
}
"""Arguments of chat templates that are a date, and their form: Llama 3's, others'."""


def iso_date(given: object) -> str:
    """A date of an entry or an option, as YYYY-MM-DD.

    Raises:
        ModelError: It is none.
    """
    text = given.isoformat() if type(given) is date else given
    if isinstance(text, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        try:
            return date.fromisoformat(text).isoformat()
        except ValueError:
            pass
    raise ModelError(f"date {given!r} is no date such as 2024-07-26")


def clock(pinned: str | None) -> Callable[[str], str]:
    """``strftime_now`` as it would be at 0:00 of a date, as YYYY-MM-DD; None for ``PINNED``."""
    return (PINNED if pinned is None else datetime.fromisoformat(pinned)).strftime


def date_arguments(known: Collection[str], pinned: str | None) -> dict[str, str]:
    """The user's date for each argument of a template that is one; by itself it takes its own."""
    if pinned is None:
        return {}
    return {name: clock(pinned)(form) for name, form in ARGUMENTS.items() if name in known}


def told_date(template: str | None, known: Collection[str], pinned: str | None) -> str | None:
    """The date that a template is told, as YYYY-MM-DD; None if it is told none."""
    if template is None or not (CLOCK in template or date_arguments(known, pinned)):
        return None
    return clock(pinned)("%Y-%m-%d")
