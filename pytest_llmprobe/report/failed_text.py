"""What a red run says first: each failed gate with cases that show why, and where to read on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from shlex import quote
from typing import Any, TypeAlias

from pytest_llmprobe.report.check import Check
from pytest_llmprobe.report.gate import CHANGE
from pytest_llmprobe.report.misses import FIRST_MISSES, shown
from pytest_llmprobe.report.misses_text import quoted
from pytest_llmprobe.report.record import Record
from pytest_llmprobe.report.terminal import printable
from pytest_llmprobe.statistics.intervals import wilson

MOST_TOLD = 5
"""Failed experiments whose cases are shown; of the others a line says that they failed."""

MAX_PROMPT = 160
"""Characters of a prompt's end: the question is there."""

MOST_KEYS, MOST_VALUES = 2, 6
"""Breakdowns of an experiment, and values of one, that are shown."""

Lost: TypeAlias = Mapping[str, Mapping[str, str | None]]
"""By experiment the earlier answers of its lost cases, by id."""


def failed_lines(
    checks: Sequence[Check],
    experiments: Sequence[Mapping[str, Any]],
    lost: Lost,
    records: Callable[[Iterable[str]], Iterable[Record]],
    run: str | None,
) -> list[str]:
    """Lines for a terminal; none if no check failed.

    Args:
        checks: All checks of the run.
        experiments: As the report has them.
        lost: Cases that passed before; a name that is no experiment's is that of several together.
        records: Gives the records of cases.
        run: What ``llmprobe show`` takes for this run; None if it has not been written.
    """
    failed = [check for check in checks if check.verdict == "FAIL"]
    by_name = {experiment["name"]: experiment for experiment in experiments}
    lines: list[str] = []
    for number, name in enumerate(dict.fromkeys(check.experiment for check in failed)):
        own = [check for check in failed if check.experiment == name]
        lines += [f"FAIL {name}: {check.reason}" for check in own]
        if number >= MOST_TOLD:
            continue
        experiment = by_name.get(name, {})
        gone = lost.get(name, {}) if any(check.metric == CHANGE for check in own) else {}
        lines += [f"  {line}" for line in explaining(experiment.get("by", {}))]
        lines += _cases(experiment, gone, records, run)
    return [printable(line) for line in lines]


def explaining(by: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Breakdowns in which some value's pass rate is surely lower than another's.

    Surely: their 95 % intervals do not overlap. The widest gap comes first, and a key that divides
    the cases like one before it is left out.
    """
    found = []
    for key, values in by.items():
        ends = [wilson(at["pass_rate"] * at["n"], at["n"]) for at in values.values()]
        gap = max(low for low, _ in ends) - min(high for _, high in ends)
        if gap > 0:
            found.append((gap, key, sorted(values.items(), key=lambda at: at[1]["pass_rate"])))
    lines: dict[tuple[tuple[int, float], ...], str] = {}
    for _, key, cells in sorted(found, key=lambda entry: -entry[0]):
        division = tuple((at["n"], at["pass_rate"]) for _, at in cells)
        said = [f"{value} {at['pass_rate']:.3f} of {at['n']}" for value, at in cells]
        if len(said) > MOST_VALUES:  # the lowest, and the highest to see what is possible
            left = f"{len(said) - MOST_VALUES} between"
            said = [*said[: MOST_VALUES - 1], left, said[-1]]
        lines.setdefault(division, f"by {key}: {', '.join(said)}")
    return [*lines.values()][:MOST_KEYS]


def _cases(
    experiment: Mapping[str, Any],
    gone: Mapping[str, str | None],
    records: Callable[[Iterable[str]], Iterable[Record]],
    run: str | None,
) -> Iterator[str]:
    """The first lost cases, or else the first missed ones, and the command that shows all."""
    ids = sorted(gone)[:FIRST_MISSES] or [miss["id"] for miss in experiment.get("first_misses", ())]
    if not ids:
        return
    what, n = ("lost", len(gone)) if gone else ("missed", experiment["missed"])
    yield f"  the first {len(ids)} of {n} {what}"
    for record in records(ids):
        expected, received, why = quoted(shown(record))
        yield f"    {record.id}"
        if record.prompt:
            cut = "..." if len(record.prompt) > MAX_PROMPT else ""
            yield f"      prompt   {cut}{record.prompt[-MAX_PROMPT:]!r}"
        yield f"      expected {expected}"
        if record.id in gone:
            before = gone[record.id]
            yield f"      before   {'no answer kept' if before is None else repr(before)}"
        yield f"      received {received}"
        yield f"      because  {why}"
    if run is not None:
        function = ids[0].rpartition("::")[2].partition("[")[0]
        yield f"  more: llmprobe show {quote(run)} {quote(function)} --missed"
