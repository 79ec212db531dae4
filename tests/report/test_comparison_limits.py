"""Scores, timings and recovery held to what they may change by against a baseline."""

import random

import pytest
from some_reports import CONFIG, ENVIRONMENT, MODEL_INFO, records, report, run

from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.report.comparison import compare
from pytest_llmprobe.report.plan import Bar
from pytest_llmprobe.report.run_file import reduce_report


def scored(values, outcomes=None, name="perplexity", **header):
    scores = [{name: value} for value in values]
    return run(records(outcomes or "p" * len(values), scores=scores), **header)


def held(second, **bar):
    """The run, held to a bar."""
    second.experiments["needle"] |= {"against_baseline": Bar(**bar).against_baseline}
    return second


def limit_check(first, second, name="perplexity", **limit):
    (check,) = compare(first, held(second, score={name: limit})).limits
    return check


RANDOM = random.Random(1)
BEFORE = [RANDOM.gauss(20, 4) for _ in range(50)]


@pytest.mark.parametrize(
    ("after", "limit", "verdict"),
    [
        (BEFORE, {"max_increase": 0.01}, "PASS"),
        (BEFORE, {"max_drop": 0}, "PASS"),
        ([x + 0.005 for x in BEFORE], {"max_increase": 0.01}, "PASS"),
        ([x + 0.02 for x in BEFORE], {"max_increase": 0.01}, "FAIL"),
        ([x - 5 for x in BEFORE], {"max_increase": 0.01}, "PASS"),  # better is no loss
        ([x - 5 for x in BEFORE], {"max_drop": 1}, "FAIL"),
        ([x * 1.005 for x in BEFORE], {"max_increase": "1%"}, "PASS"),
        ([x * 1.02 for x in BEFORE], {"max_increase": "1%"}, "FAIL"),
        ([x * 1.02 for x in BEFORE], {"max_increase": "3%", "max_drop": None}, "PASS"),
        ([x * 0.98 for x in BEFORE], {"max_drop": "1%"}, "FAIL"),
        ([x + RANDOM.gauss(0, 1) for x in BEFORE], {"max_increase": 0.01}, "NOT JUDGED"),
        ([x + RANDOM.gauss(0, 1) for x in BEFORE], {"max_increase": 2}, "PASS"),
        ([*BEFORE[1:], 1e6], {"max_increase": 2}, "NOT JUDGED"),  # one case is no proof
    ],
)
def test_a_score_passes_if_its_change_is_surely_within_the_limit(after, limit, verdict):
    check = limit_check(scored(BEFORE), scored(after), **limit)
    assert check.verdict == verdict, check.reason
    assert check.kind == next(kind for kind, value in limit.items() if value is not None)


@pytest.mark.parametrize(
    ("lost", "n", "verdict"), [(0, 30, "NOT JUDGED"), (0, 400, "PASS"), (60, 400, "FAIL")]
)
def test_a_score_of_yes_and_no_that_never_changed_is_not_taken_for_certain(lost, n, verdict):
    after = [0.0] * lost + [1.0] * (n - lost)
    check = limit_check(scored([1.0] * n), scored(after), max_drop=0.02)
    assert check.verdict == verdict, check.reason
    relative = limit_check(scored([1.0] * n), scored(after), max_drop="2%")
    assert relative.verdict == verdict
    assert relative.bar == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("first", "second", "verdict", "words"),
    [
        (scored(BEFORE), run(records("p" * 50)), "FAIL", "no case gave the score"),
        (run(records("p" * 50)), scored(BEFORE), "NOT JUDGED", "only 0 of 50 pairs have"),
        (scored(BEFORE[:4]), scored(BEFORE[:4]), "NOT JUDGED", "4 independent groups"),
        (scored(BEFORE), scored(BEFORE, "p" * 49 + "e"), "NOT JUDGED", "ended in an error"),
        (scored(BEFORE), scored(BEFORE, "p" * 49 + "s"), "NOT JUDGED", "could not be"),
        (scored(BEFORE), scored(BEFORE[:40]), "NOT JUDGED", "only 40 of 50"),
    ],
)
def test_a_score_that_cannot_be_judged_says_why(first, second, verdict, words):
    check = limit_check(first, second, max_increase=0.01)
    assert check.verdict == verdict
    assert words in check.reason


def timed(seconds, **header):
    return run(records("p" * 20, duration=seconds), **header)


OTHER_CPU = ENVIRONMENT | {"cpu": {"name": "another", "cores": 2}}


@pytest.mark.parametrize(
    ("name", "limit", "seconds", "verdict"),
    [
        ("latency_p95", {"max_increase": "10%"}, 0.26, "PASS"),
        ("latency_p95", {"max_increase": "10%"}, 0.30, "FAIL"),
        ("latency_p50", {"max_increase": 0.1}, 0.30, "PASS"),
        ("tokens_per_s", {"max_drop": "10%"}, 0.26, "PASS"),
        ("tokens_per_s", {"max_drop": "10%"}, 0.30, "FAIL"),
        ("tokens_per_s", {"max_drop": "10%"}, 0.01, "PASS"),
    ],
)
def test_a_timing_is_held_to_that_of_the_same_machine(name, limit, seconds, verdict):
    assert limit_check(timed(0.25), timed(seconds), name, **limit).verdict == verdict


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"environment": OTHER_CPU}, "cpu {'name': 'CPU'"),
        ({"environment": ENVIRONMENT | {"accelerators": ["H100"]}}, "accelerators"),
        ({"model_info": MODEL_INFO | {"device": "cuda"}}, "device cpu -> cuda"),
        ({"config": CONFIG | {"replay": "a run"}}, "answers were replayed"),
        ({"config": CONFIG | {"workers": 2}}, "workers not recorded -> 2"),
        ({"config": CONFIG | {"engine": "shared"}}, "engine not recorded -> shared"),
    ],
)
def test_a_timing_of_another_machine_is_not_judged(header, words):
    check = limit_check(timed(0.25), timed(9.0, **header), "latency_p95", max_increase="10%")
    assert check.verdict == "NOT JUDGED"
    assert words in check.reason


def test_a_measured_speed_is_held_to_that_of_the_same_machine():
    speeds = [100.0, 200.0, 150.0, 120.0, 90.0, 300.0]
    before = scored(speeds, name="decode_tokens_per_s")
    slower = [speed * 0.8 for speed in speeds]

    def verdict(**header):
        after = scored(slower, name="decode_tokens_per_s", **header)
        return limit_check(before, after, "decode_tokens_per_s", max_drop="10%")

    assert verdict().verdict == "FAIL"
    elsewhere = verdict(environment=OTHER_CPU)
    assert elsewhere.verdict == "NOT JUDGED"
    assert "only compared on the same machine: cpu" in elsewhere.reason


def recovering(least, outcomes, before=None, **more):
    first = run(records(before or "p" * len(outcomes)))
    return compare(first, held(run(records(outcomes)), recovery=least, **more))


@pytest.mark.parametrize(
    ("least", "outcomes", "verdict"),
    [
        (0.95, "p" * 200, "PASS"),
        (0.95, "m" * 2 + "p" * 198, "PASS"),
        (0.95, "m" * 30 + "p" * 170, "FAIL"),
        (0.95, "m" * 10 + "p" * 190, "NOT JUDGED"),
        (0.95, "p" * 30, "NOT JUDGED"),
        (0.5, "p" * 30, "PASS"),
    ],
)
def test_recovery_passes_if_its_whole_interval_is_above_what_is_required(least, outcomes, verdict):
    found = recovering(least, outcomes)
    (experiment,) = found.experiments
    assert found.verdict[0] == verdict, experiment.reason
    low, high = experiment.recovery_ci95
    assert (verdict == "PASS") == (low > least)
    assert (verdict == "FAIL") == (high < least)


def test_nothing_recovers_from_nothing():
    found = recovering(0.9, "p" * 30, before="m" * 30)
    assert found.verdict == ("NOT JUDGED", found.verdict[1])
    assert "of a pass rate of 0 nothing can be left" in found.verdict[1]


def test_of_two_limits_the_one_that_is_broken_decides():
    first, second = run(records("p" * 20 + "m" * 380)), run(records("m" * 400))
    second.experiments["needle"]["allowed_drop"] = 0.2  # 5 points are within
    assert compare(first, second).verdict[0] == "PASS"
    found = compare(first, held(second, recovery=0.9))  # and nothing is left
    assert found.verdict[0] == "FAIL"
    assert "with 0.9 required" in found.verdict[1]


@pytest.mark.parametrize(
    "limits",
    [
        {"recovery": 2, "score": {}},
        {"recovery": "all", "score": {}},
        {"recovery": None, "score": {"f1": {"max_drop": "much"}}},
        {"recovery": None, "score": {"f1": 3}},
        [1],
    ],
)
def test_impossible_limits_in_a_file_are_named(limits):
    made = report(records("pp"))
    made["experiments"][0]["against_baseline"] = limits
    if limits == {"recovery": None, "score": {"f1": 3}}:
        reduce_report(made)  # a bar that a comparison has no use for
        return
    with pytest.raises(ReportError, match="impossible 'against_baseline'"):
        reduce_report(made)
