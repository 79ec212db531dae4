"""Whole prompts within a page: compressed, as many as have room, read when a person asks."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.report.prompt_file import kept_prompts, read_prompt
from pytest_llmprobe.report.record import PROMPT_END

ROOM = 4_000_000
"""Characters that the prompts of a page take, compressed."""


def page_prompts(
    path: Path, tests: Iterable[Mapping[str, Any]], room: int = ROOM
) -> dict[str, str]:
    """Prompts that the report has shortened, by the id of their case, as base64 of gzip.

    Args:
        path: The file of a run's prompts; without one, or behind damage, there are none.
        tests: The report's.
        room: Characters for all of them; missed cases come first.
    """
    if not path.exists():
        return {}
    shortened = {
        test["id"]: test["outcome"] == "passed"
        for test in tests
        if len(test["prompt"] or "") > 2 * PROMPT_END
    }
    found: dict[str, str] = {}
    try:
        for passed in (False, True):
            wanted = {name for name, of_passed in shortened.items() if of_passed is passed}
            for name, packed in _packed(path, wanted):
                room -= len(packed)
                if room < 0:
                    return found
                found[name] = packed
    except ReportError:  # the page is worth more; the command that it names instead says why
        return found
    return found


def _packed(path: Path, wanted: set[str]) -> Iterator[tuple[str, str]]:
    """Each of these cases' first prompt; reads no further than the last of them."""
    for name, prompt in kept_prompts(path) if wanted else ():
        if name in wanted:
            packed = gzip.compress(read_prompt(prompt).encode("utf-8", "replace"), mtime=0)
            yield name, base64.b64encode(packed).decode()
            wanted.discard(name)
            if not wanted:
                return
