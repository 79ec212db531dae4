"""A search whose rows are the cases of evaluations: the score is their pass rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple, TypeAlias

from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.search.space import Configuration
from pytest_llmprobe.search.tuner import SearchResult, Tried, best_of, paired_difference
from pytest_llmprobe.statistics.intervals import mean_interval


class Passed(NamedTuple):
    """One judged case.

    Args:
        score: 1 if it passed, 0 if it missed.
        cluster: Its group, or itself.
        prompt: Hash of its prompt.
        tokens: Generated.
    """

    score: float
    cluster: str
    prompt: str
    tokens: int


Judged: TypeAlias = Mapping[str, Passed]
"""The judged cases of a run by id."""


def judged_cases(report: Mapping[str, Any]) -> dict[str, Passed]:
    """What a report says of its cases; those in error or skipped are left out."""
    return {
        test["id"]: Passed(
            float(test["outcome"] == "passed"),
            f"{test['experiment']}/{test['group'] or test['id']}",
            str(test["prompt_hash"] or test["id"]),
            test["generated_tokens"] or 0,
        )
        for test in report["tests"]
        if test["outcome"] in ("passed", "missed")
    }


def common_cases(runs: Sequence[Judged]) -> list[str]:
    """The cases that every run has judged.

    Raises:
        CasesError: There are none.
    """
    ids = [name for name in runs[0] if all(name in run for run in runs)]
    if not ids:
        raise CasesError("no case was judged under every configuration; see the runs' reports")
    return ids


def tried(configuration: Configuration, run: Judged, ids: Sequence[str]) -> Tried:
    """The pass rate of some of a run's cases."""
    cases = [run[name] for name in ids]
    scores = tuple(case.score for case in cases)
    interval = mean_interval(scores, [case.cluster for case in cases])
    tokens = fmean(case.tokens for case in cases)
    return Tried(configuration, fmean(scores), interval, tokens, scores)


def search_table(asked: Sequence[Configuration], runs: Sequence[Judged]) -> list[Tried]:
    """Every configuration on the cases that all of them have judged."""
    ids = common_cases(runs)
    return [tried(one, run, ids) for one, run in zip(asked, runs, strict=True)]


def conclude(
    table: Sequence[Tried], searched: Judged, ours: Judged, theirs: Judged
) -> SearchResult:
    """The best of a table beside its first entry, the default, on cases that are new.

    ``searched`` is a run of the search cases, ``ours`` and ``theirs`` are the held-out runs of the
    best configuration and of the default.

    Raises:
        CasesError: The held-out cases ask what the search cases asked.
    """
    best, default = best_of(table), table[0].configuration
    known = {case.prompt for case in searched.values()}
    ids = [name for name in common_cases([ours, theirs]) if ours[name].prompt not in known]
    if not ids:
        raise CasesError(
            "these evaluations ask the same prompts with every seed, so nothing is held out: "
            "search on cases that depend on the seed"
        )
    ours_tried, theirs_tried = tried(best, ours, ids), tried(default, theirs, ids)
    clusters = [ours[name].cluster for name in ids]
    difference, interval = paired_difference(ours_tried.scores, theirs_tried.scores, clusters)
    return SearchResult(
        table=tuple(table),
        best=best,
        default=default,
        held_out_best=ours_tried,
        held_out_default=theirs_tried,
        difference=difference,
        ci95=interval,
        n_search=len(table[0].scores),
        n_held_out=len(ids),
    )
