"""The published needle-threading data set as cases.

``jonathan-roberts1/needle-threading`` on the Hugging Face hub (arXiv 2411.05000), with the splits
Single_Needle, Multiple_Needles, Conditional_Needles, Single_Threads and Multi_Threads. Of its
columns, as its card and its README name them, these are read:

- ``id`` (integer), ``haystack`` (a JSON object of UUID pairs, as text or as an object) and
  ``question``. The prompt is haystack, line break, question, as in the README, without white space
  at the end;
- ``values``: the UUIDs of the answer, in their order, in whatever notation; where it lists whole
  threads, the ends of those that are asked for count;
- ``repeat_number``, ``needle_depth`` (per cent, as text), ``needle_placement``, ``thread_length``,
  ``thread_direction``, ``num_threads`` and ``conditional_character``, "N/A" or 0 where they mean
  nothing. The task is told from them: the README shows one row only, of a single needle, whose
  placement is ``depthwise`` and whose ``num_threads`` is 0.

Nobody here has seen the files themselves: of the archive's ``json_data/*.json`` the README tells
the names alone, so `data.rows.json_rows` reads every form that such files have. The largest are
above 500 MB (the card's sizes), which an array of rows may be and columns may not.

The answer is checked with the reference solver, so a row that means something else is an error and
not a wrong score.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from math import perm
from typing import Any

from pytest_llmprobe.case import Case
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.needle.haystack import SPECIAL, UUID
from pytest_llmprobe.experiments.needle.solver import Task, read_task, solve

COLUMNS = ("id", "haystack", "values", "question")
"""Those that a row cannot do without."""

_PARAMS = {
    "needle_depth": "depth",
    "needle_placement": "placement",
    "thread_length": "hops",
    "thread_direction": "direction",
    "num_threads": "threads",
}
_NOTHING = (None, "", "N/A")


def published_cases(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    longest: int | None = None,
    trials: int | None = None,
) -> Iterator[Case]:
    """The cases of the data set's rows; cases of one haystack share their group.

    Haystacks of more than ``longest`` characters are left out, and repeats from ``trials`` on.

    Raises:
        CasesError: A row lacks a column, the solver does not come to its answer, or every row was
            left out.
    """
    seen = kept = 0
    for where, row in rows:
        seen += 1
        missing = [column for column in COLUMNS if row.get(column) is None]
        if missing:
            has = ", ".join(sorted(map(str, row)))
            raise CasesError(f"{where} has no {missing[0]!r}; it has {has}")
        too_long = longest is not None and len(haystack_of(row)) > longest
        if too_long or (trials is not None and _number(row.get("repeat_number")) >= trials):
            continue
        kept += 1
        try:
            yield _case(row)
        except CasesError as error:
            raise CasesError(f"{where}: {error}") from None
    if not kept:
        raise CasesError(
            f"none of the {seen} rows has a haystack of at most {longest} characters and a repeat "
            f"number below {trials}; a larger --llmprobe-profile takes more"
        )


def haystack_of(row: Mapping[str, Any]) -> str:
    """A row's haystack as text, which an object becomes as it is published: on one line."""
    haystack = row["haystack"]
    return json.dumps(haystack) if isinstance(haystack, Mapping) else str(haystack)


def _case(row: Mapping[str, Any]) -> Case:
    haystack = haystack_of(row)
    prompt = f"{haystack}\n{str(row['question']).rstrip()}"
    special = row.get("conditional_character")
    special = SPECIAL if special in _NOTHING else str(special)
    task = read_task(prompt, special)
    name, size = _name(row, task), len(task.pairs)
    targets = solve(prompt, special).split("\n")
    listed = [found.lower() for found in UUID.findall(str(row["values"]))]
    if not _agree(targets, listed, is_thread="thread" in name, in_order=not task.is_conditional):
        raise CasesError(
            f"its values are {', '.join(listed)[:200] or 'no UUIDs'}, but its haystack and "
            f"question say {', '.join(targets)[:200]}"
        )
    digest = hashlib.sha256(haystack.encode()).hexdigest()[:8]
    params = {
        param: int(value) if str(value).isdecimal() else str(value)
        for column, param in _PARAMS.items()
        if (value := row.get(column)) not in _NOTHING and (value != 0 or param == "depth")
    }
    if task.is_conditional:
        params["special"] = special
    return Case(
        id=f"{name}-{size}-pairs-{digest}/{row['id']}",
        prompt=prompt,
        target="\n".join(targets),
        chance=1 / (2**size - 1) if task.is_conditional else 1 / perm(size, len(targets)),
        metadata={
            "task": name,
            "size": size,
            "trial": _number(row.get("repeat_number")),
            "needles": len(targets),
            **params,
        },
    )


def _name(row: Mapping[str, Any], task: Task) -> str:
    if task.is_conditional:
        return "conditional_needles"
    if _number(row.get("num_threads")) > 0 or _number(row.get("thread_length")) > 1:
        return "multi_threading" if len(task.keys) > 1 else "threading"
    is_list = len(task.keys) > 1 or row.get("needle_placement") in ("random", "clustered")
    return "multiple_needles" if is_list else "single_needle"


def _number(value: object) -> int:
    """A whole number of 0 up, or 0 for what is none, such as "N/A"."""
    return int(str(value)) if str(value).isdecimal() else 0


def _agree(targets: list[str], listed: list[str], *, is_thread: bool, in_order: bool) -> bool:
    if is_thread:
        return set(targets) <= set(listed)
    return listed == targets if in_order else sorted(listed) == sorted(targets)
