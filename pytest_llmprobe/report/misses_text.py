"""Why cases missed and which answers were cut off, in lines for terminal, markdown and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_llmprobe.report.misses import commonest
from pytest_llmprobe.report.terminal import printable

WIDTH = 100
"""Columns of a line that counts failures."""

MOST_CUT = 0.1
"""Share of an experiment's answers that may be cut off before the run warns."""

MAX_NAMED = 5
"""Experiments that a warning names."""

MORE_ROOM = {False: "--llmprobe-max-new-tokens x2", True: "--llmprobe-thinking-tokens"}
"""What gives answers more room, and what gives thoughts more."""


def miss_lines(experiments: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each experiment how many answers were cut off, and its commonest failures."""
    lines = []
    for experiment in experiments:
        if experiment["cut_off"]["n"]:
            lines.append(f"{experiment['name']}: {_cut(experiment['cut_off'])}")
        if experiment["failures"]:
            lines.append(_failures(experiment))
    return [printable(line) for line in lines]


def _cut(cut_off: Mapping[str, Any]) -> str:
    low, high = cut_off["tokens"]
    where = f" at {low if low == high else f'{low} to {high}'} tokens" if high else ""
    thinking = cut_off["in_thought"]
    within = f", {thinking} within a thought" if thinking else ""
    return f"{cut_off['n']} of {cut_off['answers']} answers cut off{where}{within}"


def _failures(experiment: Mapping[str, Any]) -> str:
    """As many kinds of failures as a line has room for, at least the commonest."""
    line = f"{experiment['name']}: missed {experiment['missed']} of {experiment['n']}: "
    words = [f"{word} {count}" for word, count in commonest(experiment["failures"])]
    for shown in range(len(words), 0, -1):
        left = len(words) - shown
        whole = line + ", ".join(words[:shown]) + (f" and {left} kinds more" if left else "")
        if len(whole) <= WIDTH:
            break
    return whole


def cut_off_warnings(experiments: Sequence[Mapping[str, Any]]) -> list[str]:
    """What to do where so many answers were cut off that the numbers say little of the model."""
    found: dict[bool, list[str]] = {False: [], True: []}
    for experiment in experiments:
        cut = experiment["cut_off"]
        if cut["n"] > MOST_CUT * cut["answers"]:
            said = f"{experiment['name']} ({cut['n']} of {cut['answers']})"
            found[2 * cut["in_thought"] > cut["n"]].append(said)
    lines = []
    for thinking, names in found.items():
        if names:
            left = len(names) - MAX_NAMED
            named = ", ".join(names[:MAX_NAMED]) + (f" and {left} more" if left > 0 else "")
            what = "thoughts" if thinking else "answers"
            lines.append(
                f"warning: more than {MOST_CUT:.0%} of the {what} were cut off in {named}: give "
                f"more room with {MORE_ROOM[thinking]}"
            )
    return [printable(line) for line in lines]


def failed_names(checks: Sequence[Mapping[str, Any]]) -> set[str]:
    """The experiments of which a check failed."""
    return {check["experiment"] for check in checks if check["verdict"] == "FAIL"}


def first_misses(experiment: Mapping[str, Any]) -> list[str]:
    """An experiment's first misses for a terminal: what was expected, what came, and why not."""
    misses = experiment["first_misses"]
    if not misses:
        return []
    lines = [f"{experiment['name']}: the first {len(misses)} of {experiment['missed']} misses"]
    for miss in misses:
        expected, received, why = quoted(miss)
        lines += [f"  {miss['id']}", f"    expected {expected}", f"    received {received}"]
        lines += [f"    because  {why}"]
    return [printable(line) for line in lines]


def quoted(miss: Mapping[str, Any]) -> tuple[str, str, str]:
    """Expected and received text in quotes, so that their ends can be seen, and the explanation."""
    expected, received = (
        "nothing" if miss[key] is None else repr(miss[key]) for key in ("expected", "received")
    )
    return expected, received, miss["explanation"] or "-"
