"""One experiment in two runs: which of its cases make pairs, and how the pairs differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal, TypeAlias

from pytest_llmprobe.report.baseline import Baseline, CaseResult
from pytest_llmprobe.statistics import paired, suite_test
from pytest_llmprobe.statistics.clusters import Flips
from pytest_llmprobe.statistics.intervals import Interval, effective_size

Finding: TypeAlias = Literal[
    "worse",
    "no change found",
    "better",
    "drop allowed",
    "no loss found",
    "with the suite",
    "report only",
    "not judged",
]
"""``drop allowed``: surely less is lost than may be; ``no loss found`` is said of a suite."""

Pairs: TypeAlias = Sequence[tuple[CaseResult, CaseResult]]

RATIOS = ("p50_s", "p95_s", "tokens_per_s")
MAX_NAMED = 5
"""Cases that a remark names."""


@dataclass(frozen=True)
class Flip:
    """A case whose outcome changed, with both answers."""

    id: str
    first: str | None
    second: str | None


@dataclass(frozen=True)
class ComparedScore:
    """A named score on the pairs that both have it: both means, and how it changed."""

    first: float
    second: float
    change: paired.ScoreChange
    p_adjusted: float | None = None


@dataclass(frozen=True)
class ComparedExperiment:
    """One experiment in both runs.

    Args:
        reason: For the finding, in words.
        in_second: Whether the second run has it.
        errors: Cases of the second run that ended in an error.
        remarks: What could not be compared.
        n: Pairs: cases judged in both runs, by id.
        prompts_changed: Pairs whose prompt is another one: model and prompt are judged together.
        groups: Clusters of pairs (haystacks); ``n`` if none share one.
        effective: Independent pairs that would be as certain, at most ``n``.
        labels: Whether pairs have groups whose prompts share no beginning, so that they are none.
        first_rate: Pass rate of the first run on the pairs; None without pairs.
        ci95: Interval of second rate minus first; as much wider as repeated runs differ.
        recovery: Second rate over first; None if that is 0.
        recovery_ci95: Its interval; None if so few passed before that it has no end.
        allowed_drop: What the pass rate may fall by, if that is what it was judged by.
        required_recovery: Which part of it must be left, if that is.
        flips: The pairs by cluster.
        test: Signs of whole ``clusters``, ``cases`` on their effective number, or with the
            ``suite``; None if it has no test.
        lost: Cases that passed and now miss.
        gained: Cases that missed and now pass.
        p: Two-sided, of that test.
        p_adjusted: Holm's, over the judged experiments; None if not judged.
        detectable: Where no change was found, the change of the pass rate that would have been
            with 80 % probability; None if these pairs can show no change at all.
        ratios: Second over first: ``generation_s`` over the pairs, and the reports' own timings.
    """

    name: str
    finding: Finding
    reason: str
    in_second: bool = True
    errors: int = 0
    remarks: Sequence[str] = ()
    n: int = 0
    prompts_changed: int = 0
    groups: int = 0
    effective: float = 0.0
    labels: bool = False
    first_rate: float | None = None
    second_rate: float | None = None
    ci95: Interval | None = None
    recovery: float | None = None
    recovery_ci95: Interval | None = None
    allowed_drop: float | None = None
    required_recovery: float | None = None
    flips: Flips | None = None
    test: suite_test.Method | None = None
    lost: Sequence[Flip] = ()
    gained: Sequence[Flip] = ()
    p: float = 1.0
    p_adjusted: float | None = None
    detectable: float | None = None
    scores: Mapping[str, ComparedScore] = field(default_factory=dict)
    ratios: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def difference(self) -> float | None:
        """Second rate minus first."""
        if self.first_rate is None or self.second_rate is None:
            return None
        return self.second_rate - self.first_rate


def compare_experiment(
    name: str, first: Baseline, second: Baseline, names: tuple[str, str]
) -> ComparedExperiment:
    """Everything that can be said of one experiment alone.

    Where nothing stands in the way of a judgement the finding is "no change found" for now:
    ``conclude_all`` decides when all experiments are known.
    """
    for run, other in ((first, names[1]), (second, names[0])):
        if name not in run.experiments:
            reason = f"only in {other}"
            return ComparedExperiment(name, "not judged", reason, run is first, remarks=[reason])
    one, two = (_cases(run, name) for run in (first, second))
    both = [(one[case], two[case]) for case in one if case in two]
    measured = [(a, b) for a, b in both if a.judged and b.judged]
    partial = [
        f"only {counts['reported']} of {counts['collected']} cases of {which} have a result"
        for which, run in zip(names, (first, second), strict=True)
        if (counts := run.experiments[name])["reported"] < counts["collected"]
    ]
    if gone := [b.id for a, b in both if a.judged and not b.judged]:
        partial.append(
            f"{len(gone)} cases that were measured in {names[0]} could not be in "
            f"{names[1]}: {_listed(gone)}"
        )
    errors = int(second.experiments[name]["errors"])
    reason = ""
    if errors:
        reason = f"{errors} of {len(two)} cases ended in an error"
    elif not measured:
        reason = "no case was measured in both runs"
    elif partial:
        reason = partial[0]
    return replace(
        _paired(name, measured, first, second),
        finding="not judged" if reason else "no change found",
        reason=reason,
        errors=errors,
        remarks=[*_incomparable(one, two, names), *partial],
        prompts_changed=sum(a.prompt_hash != b.prompt_hash for a, b in measured),
    )


def _cases(run: Baseline, experiment: str) -> dict[str, CaseResult]:
    return {case.id: case for case in run.cases.values() if case.experiment == experiment}


def _incomparable(
    one: Mapping[str, CaseResult],
    two: Mapping[str, CaseResult],
    names: tuple[str, str],
) -> list[str]:
    remarks = []
    if len(one) != len(two):
        remarks.append(f"{len(one)} cases in {names[0]}, {len(two)} in {names[1]}")
    for which, cases in ((names[0], one.keys() - two.keys()), (names[1], two.keys() - one.keys())):
        if cases:
            remarks.append(f"{len(cases)} cases only in {which}: {_listed(sorted(cases))}")
    return remarks


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - MAX_NAMED} more" if len(ids) > MAX_NAMED else ""
    return ", ".join(ids[:MAX_NAMED]) + more


def _paired(name: str, pairs: Pairs, first: Baseline, second: Baseline) -> ComparedExperiment:
    """The pairs' statistics, without a finding."""
    if not pairs:
        return ComparedExperiment(name, "not judged", "")
    before, after = ([case.outcome == "passed" for case in run] for run in zip(*pairs, strict=True))
    changes = [now - then for then, now in zip(before, after, strict=True)]
    clusters = [a.cluster for a, _ in pairs]
    noise = first.noise.get(name, 0.0)
    flips = [
        (change, Flip(a.id, a.received, b.received))
        for change, (a, b) in zip(changes, pairs, strict=True)
    ]
    return ComparedExperiment(
        name,
        "not judged",
        "",
        n=len(pairs),
        groups=len(set(clusters)),
        effective=effective_size(changes, clusters)[0],
        labels=any(a.group and a.cluster != a.group for a, _ in pairs),
        first_rate=fmean(before),
        second_rate=fmean(after),
        ci95=paired.change_interval(changes, clusters, noise=noise),
        recovery=sum(after) / sum(before) if any(before) else None,
        recovery_ci95=paired.recovery_interval(before, after, clusters, noise=noise),
        flips=Flips.of(changes, clusters),
        lost=[flip for change, flip in flips if change < 0],
        gained=[flip for change, flip in flips if change > 0],
        scores=_scores(pairs),
        ratios=_ratios(pairs, first.experiments[name], second.experiments[name]),
    )


def _scores(pairs: Pairs) -> dict[str, ComparedScore]:
    scores = {}
    for name in sorted({name for a, b in pairs for name in a.scores.keys() & b.scores.keys()}):
        both = [(a, b) for a, b in pairs if name in a.scores and name in b.scores]
        first, second = ([case.scores[name] for case in run] for run in zip(*both, strict=True))
        differences = [after - before for before, after in zip(first, second, strict=True)]
        change = paired.score_change(differences, [a.cluster for a, _ in both])
        scores[name] = ComparedScore(fmean(first), fmean(second), change)
    return scores


def _ratios(
    pairs: Pairs,
    first: Mapping[str, Mapping[str, float]],
    second: Mapping[str, Mapping[str, float]],
) -> dict[str, float | None]:
    seconds = [sum(case.duration for case in run) for run in zip(*pairs, strict=True)]
    values = {"generation_s": seconds} | {
        name: [run["timings"].get(name) for run in (first, second)] for name in RATIOS
    }
    return {name: two / one if one and two else None for name, (one, two) in values.items()}
