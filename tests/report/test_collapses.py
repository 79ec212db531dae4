"""Forty collapses of our own invention: no comparison of them may end as PASS."""

import pytest
from some_reports import records, run

from pytest_llmprobe.report.comparison import compare
from pytest_llmprobe.report.plan import Bar


def one(first, second, **options):
    """One experiment, before and now, from letters."""
    return [records(first, **options)], [records(second, **options)]


def some(*pairs):
    """Several experiments, before and now."""
    return tuple(
        [records(pair[side], f"e{number:02}") for number, pair in enumerate(pairs)]
        for side in (0, 1)
    )


def grouped(sizes, first, second):
    """One experiment in haystacks of these sizes; letters of each haystack."""
    group = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    return one("".join(first), "".join(second), group=group, shares_prefix=True)


def scored(before, after, limit):
    """A score that may change by so much, and whose cases all pass."""
    first = [records("p" * len(before), scores=[{"loss": x} for x in before])]
    second = [records("p" * len(after), scores=[{"loss": x} for x in after])]
    return first, second, {"score": {"loss": limit}}


P, M = "p", "m"
LOSS = [2 + n % 7 / 10 for n in range(40)]
TABLE = {
    # all of it
    "100 of 100 to 0": one(P * 100, M * 100),
    "5 of 5 to 0": one(P * 5, M * 5),
    "7 of 60 to 0": one(P * 7 + M * 53, M * 60),
    "1,000 of 1,000 to 0": one(P * 1000, M * 1000),
    "all lost in one haystack": grouped([100], [P * 100], [M * 100]),
    "all lost in two haystacks": grouped([30, 30], [P * 60], [M * 60]),
    "all lost in three haystacks": grouped([20] * 3, [P * 60], [M * 60]),
    "all lost in haystacks of other sizes": grouped([1, 2, 50, 9], [P * 62], [M * 62]),
    "one of many experiments to 0": some(*[(P * 30, P * 30)] * 9, (P * 12, M * 12)),
    "a small one of many to 0": some(*[(P * 30, P * 30)] * 9, (P * 5, M * 5)),
    "five small ones to 0": some(*[(P * 30, P * 30)] * 5, *[(P * 5, M * 5)] * 5),
    "every experiment to 0": some(*[(P * 9, M * 9)] * 20),
    "all but one lost": one(P * 80, M * 79 + P),
    "as many gained as a sop": one(P * 60 + M * 5, M * 60 + P * 5),
    # a part of it
    "a half of 100": one(P * 100, M * 50 + P * 50),
    "a fifth of 200": one(P * 200, M * 40 + P * 160),
    "ten of 50": one(P * 50, M * 10 + P * 40),
    "a tenth of 1,000 with noise": one(P * 500 + M * 500, M * 120 + P * 380 + P * 40 + M * 460),
    "from 30 % to 10 %": one(P * 90 + M * 210, P * 30 + M * 270),
    "all of half of the haystacks": grouped(
        [10] * 20, [P * 200], [(M if n % 2 else P) * 10 for n in range(20)]
    ),
    "some of each haystack": grouped([10] * 15, [P * 150], ["mmmm" + P * 6] * 15),
    "3 of 40 in each of 10": some(*[(P * 40, M * 3 + P * 37)] * 10),
    "1 of 12 in each of 15": some(*[(P * 12, M + P * 11)] * 15),
    "one lost in each of 15 small ones": some(*[(P * 4, M + P * 3)] * 15),
    "half of each small one": some(*[(P * 4, "mmpp")] * 12),
    "one gains what another loses": some((M * 60, P * 60), (P * 60, M * 60)),
    "a fifth of each of three": some(*[(P * 100, M * 20 + P * 80)] * 3),
    # without an answer
    "one error": one(P * 40, P * 39 + "e"),
    "half in error": one(P * 40, P * 20 + "e" * 20),
    "all in error": one(P * 40, "e" * 40),
    "one skipped": one(P * 40, P * 39 + "s"),
    "all that would miss are skipped": one(P * 40, P * 20 + "s" * 20),
    "all skipped": one(P * 40, "s" * 40),
    "all absent": ([records(P * 40)], [records(P * 40, "other")]),
    "one experiment absent": ([records(P * 40), records(P * 40, "b")], [records(P * 40)]),
    "the second half was not run": one(P * 40, P * 20),
    "the baseline's were hardly measured": one(P * 2, M * 2),
    # what may change by so much
    "the loss doubles": scored(LOSS, [2 * x for x in LOSS], {"max_increase": "10%"}),
    "the loss creeps": scored(LOSS, [x + 0.02 for x in LOSS], {"max_increase": 0.01}),
    "the loss of one case explodes": scored(LOSS, [*LOSS[1:], 1e9], {"max_increase": 0.5}),
    "no loss is told any more": (
        [records(P * 40, scores=[{"loss": x} for x in LOSS])],
        [records(P * 40)],
        {"score": {"loss": {"max_increase": 1}}},
    ),
    "the loss is too good to be true": scored(LOSS, [0.0] * 40, {"max_drop": 0.5}),
    "a recovery of 80 %": (*one(P * 300, M * 60 + P * 240), {"recovery": 0.95}),
    "a recovery that 20 cases cannot show": (*one(P * 20, P * 20), {"recovery": 0.95}),
    "a recovery from nothing": (*one(M * 40, M * 40), {"recovery": 0.5}),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_collapse_is_never_green(name):
    before, now, *bar = TABLE[name]
    first, second = run(*before), run(*now)
    for limits in bar:
        second.experiments["needle"]["against_baseline"] = Bar(**limits).against_baseline
    verdict, reason = compare(first, second).verdict
    assert verdict in ("FAIL", "NOT JUDGED"), reason
    assert reason


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if len(row) == 2])
def test_without_the_collapse_it_would_have_been_green(name):
    before, *_ = TABLE[name]
    verdict, reason = compare(run(*before), run(*before)).verdict
    few = {"5 of 5 to 0", "the baseline's were hardly measured"}
    clusters = name.startswith("all lost in ")
    assert verdict == ("NOT JUDGED" if name in few or clusters else "PASS"), reason
