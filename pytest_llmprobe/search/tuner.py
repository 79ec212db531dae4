"""Find the best configuration on some of the rows; say on the others whether it is better."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.search.rows import SearchRow, cluster_of
from pytest_llmprobe.search.space import Configuration, Parameters, Space
from pytest_llmprobe.search.task import Answer, SearchTask
from pytest_llmprobe.statistics.intervals import Interval, mean_interval
from pytest_llmprobe.statistics.paired import change_interval, score_change
from pytest_llmprobe.statistics.resampling import bootstrap_interval

if TYPE_CHECKING:
    from pytest_llmprobe.report.record import Record

NOTHING_BETTER = "no configuration is better"


@dataclass(frozen=True)
class Tried:
    """A configuration and its score on some rows.

    Args:
        configuration: How was generated.
        mean: The mean score of the rows, or their score together.
        ci95: Its interval, or None if one cluster alone gives no spread.
        tokens: Generated tokens of an answer in the mean.
        scores: One a row; empty if the scorer gives one for all.
    """

    configuration: Configuration
    mean: float
    ci95: Interval | None
    tokens: float
    scores: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            "value": self.configuration.label,
            "mean": self.mean,
            "ci95": None if self.ci95 is None else list(self.ci95),
            "tokens": self.tokens,
        }


@dataclass(frozen=True)
class SearchResult:
    """What a search found, and whether it holds on rows that it did not see.

    Args:
        table: Every configuration on the search rows, in the order of the space.
        best: The one with the best score there; of equals the first, the default before all.
        default: What it is compared with.
        held_out_best: The best one's score on the held-out rows.
        held_out_default: The default's score there.
        difference: Held-out score of the best minus that of the default.
        ci95: Paired interval of the difference, or None where there are too few clusters.
        n_search: Rows that were searched on.
        n_held_out: Rows that were held out.
        greater_is_better: Whether the best score is the largest one.
    """

    table: tuple[Tried, ...]
    best: Configuration
    default: Configuration
    held_out_best: Tried
    held_out_default: Tried
    difference: float
    ci95: Interval | None
    n_search: int
    n_held_out: int
    greater_is_better: bool = True

    @property
    def is_better(self) -> bool:
        """Whether the best configuration is significantly better on the held-out rows."""
        return self._significant(self.greater_is_better)

    @property
    def is_worse(self) -> bool:
        """Whether it is significantly worse there."""
        return self._significant(not self.greater_is_better)

    def _significant(self, above: bool) -> bool:
        """Whether the whole interval is on one side of 0."""
        return self.ci95 is not None and (self.ci95[0] > 0 if above else self.ci95[1] < 0)

    @property
    def verdict(self) -> str:
        """One sentence; begins with "no configuration is better" unless one is."""
        rows = f"on {self.n_held_out} held-out rows"
        if self.best.key == self.default.key:
            where = "above" if self.greater_is_better else "below"
            return f"{NOTHING_BETTER}: of {len(self.table)} tried none scores {where} the default"
        if self.ci95 is None:
            return f"{NOTHING_BETTER}, as far as can be told: too few independent rows"
        change = f"{self.difference:+.3f} [{self.ci95[0]:+.3f}, {self.ci95[1]:+.3f}] {rows}"
        if self.is_better:
            return f"{self.best.label} is better than {self.default.label}: {change}"
        if self.is_worse:
            return f"{NOTHING_BETTER}: {self.best.label} was chosen and is worse: {change}"
        return f"{NOTHING_BETTER}: {self.best.label} is not surely so: {change}"

    def as_dict(self) -> dict[str, Any]:
        """Everything, in built-in types, as it is in a report."""
        return {
            "verdict": self.verdict,
            "best": self.best.label,
            "default": self.default.label,
            "tried": len(self.table),
            "search_rows": self.n_search,
            "held_out_rows": self.n_held_out,
            "held_out_best": self.held_out_best.mean,
            "held_out_default": self.held_out_default.mean,
            "difference": self.difference,
            "difference_ci95": None if self.ci95 is None else list(self.ci95),
            **({} if self.greater_is_better else {"greater_is_better": False}),
            "configurations": [tried.as_dict() for tried in self.table],
        }

    def __str__(self) -> str:
        """The table, best first, the held-out comparison and the verdict."""
        return "\n".join(lines(self.as_dict()))


def lines(found: Mapping[str, Any]) -> list[str]:
    """A search's result as text, from what ``SearchResult.as_dict`` gives."""
    sign = -1 if found.get("greater_is_better", True) else 1
    ordered = sorted(found["configurations"], key=lambda tried: sign * tried["mean"])
    width = max(map(len, ("configuration", *(tried["value"] for tried in ordered))))
    rows = f"{found['search_rows']} search rows"
    table = [f"{'configuration':{width}}  score on {rows} [95% CI]  tokens"]
    for tried in ordered:
        interval = "[{:.3f}, {:.3f}]".format(*tried["ci95"]) if tried["ci95"] else "[-]"
        score = f"{tried['mean']:.3f} {interval}"
        table.append(f"{tried['value']:{width}}  {score:>{len(rows) + 18}}  {tried['tokens']:6.1f}")
    return [
        *table,
        f"tried {found['tried']} configurations; on {found['held_out_rows']} held-out rows:",
        f"  best     {found['held_out_best']:.3f}  {found['best']}",
        f"  default  {found['held_out_default']:.3f}  {found['default']}",
        str(found["verdict"]),
    ]


def search_summary(records: Iterable[Record]) -> dict[str, Any]:
    """Verdict, held-out comparison and table of configurations, for ``probe(summary=...)``.

    The ``search`` fixture puts them into the records' params; several searches of an experiment
    are told apart by their task or number.
    """
    found = [(one.task, one.params["search"]) for one in records if "search" in one.params]
    if len(found) == 1:
        return dict(found[0][1])
    return {
        f"{task or number}_{key}": value
        for number, (task, result) in enumerate(found, 1)
        for key, value in result.items()
    }


def search(
    task: SearchTask,
    space: Space = "small",
    *,
    default: Parameters | None = None,
    held_out: float = 0.5,
    seed: int = 0,
) -> SearchResult:
    """Try every configuration on the search rows; compare the best with the default on the others.

    The published gains of such searches are of the rows that were searched on; with many
    configurations the best of them is good there by luck, too. The held-out rows are generated for
    two configurations only, and say whether anything is left of it.

    Args:
        task: Rows, prompts, scorer and engine.
        space: A preset's name, a grid (lists of values by parameter name) or several grids.
        default: What the best is compared with, and tried too: greedy unless you say otherwise.
        held_out: Share of the clusters that are held out.
        seed: Of the split.

    Raises:
        CasesError: There are too few rows to hold any out, or the scorer gave no numbers.
        RequestError: A row cannot be answered.
        SettingsError: A configuration cannot be used; nothing has been generated then.
    """
    standard = task.configuration(default or {})
    different = [one for one in task.configurations(space) if one.key != standard.key]
    rows, others = split_rows(task.rows, held_out, seed)
    table = _tried(task, [standard, *different], rows)
    best = best_of(table, task.greater_is_better)
    judged = _tried(task, [best] if best is standard else [best, standard], others)
    difference, interval = _difference(task, judged[0], judged[-1], others)
    return SearchResult(
        table=tuple(table),
        best=best,
        default=standard,
        held_out_best=judged[0],
        held_out_default=judged[-1],
        difference=difference,
        ci95=interval,
        n_search=len(rows),
        n_held_out=len(others),
        greater_is_better=task.greater_is_better,
    )


def best_of(table: Sequence[Tried], greater_is_better: bool = True) -> Configuration:
    """The configuration with the best score; of equals the first."""
    best = max if greater_is_better else min
    return best(table, key=lambda tried: tried.mean).configuration


def split_rows(
    rows: Sequence[SearchRow], held_out: float, seed: int
) -> tuple[list[SearchRow], list[SearchRow]]:
    """Search rows and held-out rows, by whole clusters; the order of the rows does not matter.

    Raises:
        CasesError: One part would be empty.
    """
    clusters = sorted({cluster_of(row) for row in rows})
    count = round(held_out * len(clusters))
    if not 0 < count < len(clusters):
        raise CasesError(
            f"held_out={held_out!r} of {len(clusters)} independent rows or groups leaves a part "
            "without any; give more rows, or a share between 0 and 1"
        )
    chosen = set(random.Random(seed).sample(clusters, count))
    search_rows = [row for row in rows if cluster_of(row) not in chosen]
    return search_rows, [row for row in rows if cluster_of(row) in chosen]


def paired_difference(
    ours: Sequence[float], theirs: Sequence[float], clusters: Sequence[str]
) -> tuple[float, Interval | None]:
    """Mean of ours minus mean of theirs, a score for each of the same rows, and its interval.

    None for rows of one cluster.
    """
    changes = [a - b for a, b in zip(ours, theirs, strict=True)]
    if not {*ours, *theirs} <= {0.0, 1.0}:
        change = score_change(changes, clusters)
        return change.mean, change.ci95
    if len(set(clusters)) < 2:
        return fmean(changes), None
    return fmean(changes), change_interval([int(change) for change in changes], clusters)


def _tried(
    task: SearchTask, asked: Sequence[Configuration], rows: Sequence[SearchRow]
) -> list[Tried]:
    found = []
    clusters = [cluster_of(row) for row in rows]
    for one, answers in zip(asked, task.answers(asked, rows), strict=True):
        scores = task.judge(rows, answers)
        tokens = fmean(answer.generated_tokens for answer in answers)
        if isinstance(scores, list):
            ci = mean_interval(scores, clusters)
            found.append(Tried(one, fmean(scores), ci, tokens, tuple(scores)))
        else:
            ci = bootstrap_interval(partial(_joint, task, rows, answers), clusters)
            found.append(Tried(one, scores, ci, tokens))
    return found


def _joint(
    task: SearchTask, rows: Sequence[SearchRow], answers: Sequence[Answer], some: Sequence[int]
) -> float:
    """The one score of some rows, by number."""
    score: float = task.judge([rows[n] for n in some], [answers[n] for n in some])
    return score


def _difference(
    task: SearchTask, best: Tried, default: Tried, rows: Sequence[SearchRow]
) -> tuple[float, Interval | None]:
    """Best minus default on the same rows, and its paired interval."""
    clusters = [cluster_of(row) for row in rows]
    if best.scores and default.scores:
        return paired_difference(best.scores, default.scores, clusters)
    answers = task.answers([best.configuration, default.configuration], rows)
    ours, theirs = (partial(_joint, task, rows, its) for its in answers)
    interval = bootstrap_interval(lambda some: ours(some) - theirs(some), clusters)
    return best.mean - default.mean, interval
