"""A comparison in words and cells, for the terminal; markdown and HTML use the same."""

from __future__ import annotations

from collections.abc import Container, Sequence

from pytest_llmprobe.report.comparison import Comparison
from pytest_llmprobe.report.comparison_pairs import ComparedExperiment, Flip
from pytest_llmprobe.report.comparison_verdicts import ComparedSuite
from pytest_llmprobe.report.record import bounded
from pytest_llmprobe.report.terminal import aligned, printable, with_interval
from pytest_llmprobe.statistics.similarity import matched_prefix

HEADER = (
    "experiment",
    "pairs",
    "first",
    "second",
    "difference [95% CI]",
    "lost",
    "gained",
    "p",
    "time",
    "finding",
)
MAX_FLIPS, MAX_DIFFERENCES = 5, 8
"""Flipped cases of one experiment, and differences of the runs, that a terminal shows."""
MAX_SHOWN, MAX_ALIKE = 60, 30
"""Characters of an answer that a terminal shows, and of a beginning that two answers share."""


def cells(experiment: ComparedExperiment) -> list[str]:
    """One row under ``HEADER``; p is Holm's where the experiment was judged, time a ratio."""
    p = experiment.p if experiment.p_adjusted is None else experiment.p_adjusted
    if experiment.difference is None or experiment.ci95 is None:
        return [experiment.name, "0", *["-"] * 7, experiment.finding]
    ratio = experiment.ratios.get("generation_s")
    low, high = experiment.ci95
    return [
        experiment.name,
        str(experiment.n),
        f"{experiment.first_rate:.3f}",
        f"{experiment.second_rate:.3f}",
        f"{experiment.difference:+.3f} [{low:+.3f}, {high:+.3f}]",
        str(len(experiment.lost)),
        str(len(experiment.gained)),
        f"{p:.2g}",
        "-" if ratio is None else f"x {ratio:.2f}",
        experiment.finding,
    ]


def notes(experiment: ComparedExperiment) -> list[str]:
    """What the row does not say: why not judged, haystacks, what would have been found, scores."""
    said = []
    if experiment.finding == "not judged" and not experiment.remarks:
        said.append(f"not judged: {experiment.reason}")
    elif experiment.finding in ("not judged", "with the suite", "drop allowed"):
        said.append(experiment.reason)
    if experiment.groups == 1 < experiment.n:
        said.append(f"{experiment.n} cases share one group: the interval takes them as independent")
    elif 0 < experiment.groups < experiment.n:
        said.append(
            f"{experiment.n} cases share {experiment.groups} groups and count as "
            f"{experiment.effective:.0f}"
        )
    if experiment.labels:
        said.append("groups whose prompts share no long beginning are labels: single cases")
    if experiment.finding == "no change found":
        said.append(_findable(experiment.detectable, "change"))
    if experiment.recovery is not None and experiment.recovery != 1:
        said.append(f"recovery {experiment.recovery:.3f} of the pass rate")
    for name, score in experiment.scores.items():
        if score.p_adjusted is not None and score.p_adjusted < 0.05:
            change = with_interval(score.change.mean, score.change.ci95, "+")
            means = f"{score.first:.3g} -> {score.second:.3g}"
            said.append(f"score {name} {means}: {change}, p = {score.p_adjusted:.2g}")
    return said


def _findable(change: float | None, what: str) -> str:
    if change is None:
        return f"so few cases show a {what} only if nearly all of them turn"
    return f"a {what} of {change:.3f} or more would have been found with 80 % probability"


def suite_cells(suite: ComparedSuite) -> list[str]:
    """The row of the suite or of a family; p is one-sided, the suite's has a level of its own."""
    return [
        suite.name,
        str(suite.n),
        f"{suite.first_rate:.3f}",
        f"{suite.second_rate:.3f}",
        f"{suite.difference:+.3f}",
        str(suite.lost),
        str(suite.gained),
        f"{suite.p:.2g}",
        "-",
        suite.finding,
    ]


def suite_notes(suite: ComparedSuite) -> list[str]:
    """What the suite's row does not say: what would have been found."""
    if suite.finding == "not judged":
        return [suite.reason]
    count = f"{suite.n} cases in {suite.clusters} groups count as {suite.effective:.0f}"
    return [count, *([] if suite.finding == "worse" else [_findable(suite.detectable, "drop")])]


def rows(comparison: Comparison) -> list[list[str]]:
    """The rows under ``HEADER``: each experiment, then families and the suite."""
    return [
        *map(cells, comparison.experiments),
        *map(suite_cells, comparison.together),
    ]


def all_notes(comparison: Comparison) -> list[str]:
    """What the rows do not say, each with its row's name; then limits of scores and timings."""
    return [
        *(f"{e.name}: {note}" for e in comparison.experiments for note in notes(e)),
        *(f"{s.name}: {note}" for s in comparison.together for note in suite_notes(s)),
        *(f"{check.experiment}: {check.verdict}: {check.reason}" for check in comparison.limits),
    ]


def differences(comparison: Comparison) -> list[str]:
    """What was not the same in the two runs, the likeliest cause first."""
    if not comparison.differences:
        return ["nothing that the reports tell of differs between the two runs"]
    first, *others = (str(difference) for difference in comparison.differences)
    lines = [f"first difference: {first}"]
    if others:
        more = f" and {len(others) - MAX_DIFFERENCES} more" if len(others) > MAX_DIFFERENCES else ""
        lines.append(f"also: {'; '.join(others[:MAX_DIFFERENCES])}{more}")
    return lines


def lines(comparison: Comparison, width: int | None = None, told: Container[str] = ()) -> list[str]:
    """Everything for a terminal but the verdict: first what cannot be compared.

    Args:
        comparison: What was found.
        width: As ``aligned`` takes it.
        told: Experiments whose lost cases have been shown already.
    """
    said = [f"{comparison.second} compared with {comparison.first}"]
    said += [comparison.prompts] if comparison.prompts else []
    said += [f"not comparable: {remark}" for remark in comparison.remarks]
    said += aligned([HEADER, *rows(comparison)], (0, len(HEADER) - 1), width)
    said += all_notes(comparison)
    for experiment in comparison.experiments:
        if experiment.name not in told:
            said += _flips(f"{experiment.name}: lost", experiment.lost)
        said += _flips(f"{experiment.name}: gained", experiment.gained)
    return [printable(line) for line in [*said, *differences(comparison)]]


def _flips(title: str, flips: Sequence[Flip]) -> list[str]:
    if not flips:
        return []
    said = [f"  {flip.id}: {' -> '.join(_answers(flip))}" for flip in flips]
    more = [f"  and {len(said) - MAX_FLIPS} more"] if len(said) > MAX_FLIPS else []
    return [f"{title} {len(flips)}", *said[:MAX_FLIPS], *more]


def _answers(flip: Flip) -> list[str]:
    """Both answers, quoted, from a little before their first difference."""
    alike = matched_prefix(flip.first or "", flip.second or "")
    skipped = alike - MAX_ALIKE // 2 if alike > MAX_ALIKE else 0
    return [
        "no answer"
        if answer is None
        else f"{'...' if skipped else ''}{bounded(answer[skipped:], MAX_SHOWN)!r}"
        for answer in (flip.first, flip.second)
    ]
