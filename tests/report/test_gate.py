"""Bars, plans and verdicts: what the exit code and the last line must agree on."""

import json
import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.report.check import Check
from pytest_llmprobe.report.gate import NO_BAR, judge, lost_to_errors, run_verdict
from pytest_llmprobe.report.limits import Limits
from pytest_llmprobe.report.plan import Bar, ExperimentPlan, read_plan, write_plan
from pytest_llmprobe.report.schema import schema
from pytest_llmprobe.report.summary_function import SummaryFunction
from pytest_llmprobe.statistics.intervals import wilson

many = settings(deadline=None, max_examples=200)


def experiment(
    name="needle",
    passed=9,
    n=10,
    errors=0,
    skipped=0,
    collected=None,
    interval=(0.6, 0.98),
    scores=None,
    timings=None,
):
    reported = n + errors + skipped
    return {
        "name": name,
        "n": n,
        "pass_rate": passed / n if n else None,
        "errors": errors,
        "skipped": skipped,
        "reported": reported,
        "collected": reported if collected is None else collected,
        "ci95_clustered": list(interval) if n else None,
        "scores": scores or {},
        "timings": timings or {},
    }


def check(bar, **fields):
    found = experiment(**fields)
    plan = {found["name"]: ExperimentPlan(found["name"], "t::a", found["collected"], [], bar)}
    (only,) = judge(plan, [found])
    return only


def verdict_of(verdict, name="needle", reason="because"):
    return Check(name, "pass_rate", 0.9, "observed", 0.5, verdict, reason)


# Bars


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"score": {}},
        {"rule": "significant"},
        {"pass_rate": -0.1},
        {"pass_rate": 1.1},
        {"pass_rate": 90},
        {"pass_rate": True},
        {"pass_rate": "high"},
        {"pass_rate": math.nan},
        {"score": {"f1": "high"}},
        {"score": {"f1": True}},
        {"score": {"f1": None}},
        {"score": {"f1": math.nan}},
        {"score": {"f1": math.inf}},
        {"score": 0.8},
        {"score": "f1"},
        {"pass_rate": 0.5, "rule": "exact"},
        {"passrate": 0.5},
        {"score": {"f1": {}}},
        {"score": {"f1": {"minimum": 1}}},
        {"score": {"f1": {"min": "1%"}}},
        {"score": {"f1": {"min": 0.9, "max": 0.8}}},
        {"score": {"f1": {"max_drop": -0.1}}},
        {"score": {"f1": {"max_drop": "-1%"}}},
        {"score": {"f1": {"max_drop": "much"}}},
        {"score": {"f1": {"max_drop": "nan%"}}},
        {"score": {"f1": {"max_increase": True}}},
        {"allowed_drop": 1},
        {"allowed_drop": -0.1},
        {"allowed_drop": "2%"},
        {"recovery": 0},
        {"recovery": 1.1},
        {"recovery": math.nan},
    ],
)
def test_an_impossible_bar_is_refused_and_the_error_says_where_it_stands(options):
    with pytest.raises(SettingsError, match=r"^gate marker: "):
        Bar.of(options, "gate marker")


def test_a_misspelt_option_is_named_with_the_known_ones():
    with pytest.raises(SettingsError, match=r"passrate.*mean pass_rate\? known: pass_rate, score,"):
        Bar.of({"passrate": 0.5}, "here")


def test_a_known_option_with_a_wrong_value_is_not_called_unknown():
    with pytest.raises(SettingsError) as caught:
        Bar.of({"score": 0.8}, "here")
    assert "unknown" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"pass_rate": 0},
        {"pass_rate": 1},
        {"allowed_drop": 0},
        {"recovery": 0.95},
        {"pass_rate": 0.5, "recovery": 1, "rule": "significant"},
    ],
)
def test_a_possible_bar_is_kept(options):
    bar = Bar.of(options, "here")
    assert {key: getattr(bar, key) for key in options} == options


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ({"f1": 0.5, "own": -3}, {"f1": Limits(min=0.5), "own": Limits(min=-3)}),
        ({"perplexity": 20, "edit_distance": 0.1}, [Limits(max=20), Limits(max=0.1)]),
        ({"latency_p95": 2.0, "tokens_per_s": 50}, [Limits(max=2.0), Limits(min=50)]),
        ({"perplexity": {"min": 20}}, [Limits(min=20)]),  # whoever says which way means it
        ({"f1": {"max_drop": "1%"}}, [Limits(max_drop="1%")]),
        ({"f1": {"min": 0.5, "max": 0.9}}, [Limits(min=0.5, max=0.9)]),
        ({"tokens_per_s": {"max_drop": 500}}, [Limits(max_drop=500)]),
        ({"tokens_per_s": {"max_drop": "99%"}}, [Limits(max_drop="99%")]),
    ],
)
def test_a_score_has_a_direction_that_is_known_or_said(given, limits):
    found = Bar.of({"score": given}, "here").score
    assert found == (limits if isinstance(limits, dict) else dict(zip(given, limits, strict=True)))


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("latency_p95", -1),
        ("latency_p50", {"max": 0}),
        ("latency_p95", {"min": -0.5, "max": 3}),
        ("tokens_per_s", 0),
        ("tokens_per_s", {"min": -4}),
        ("tokens_per_s", {"max_drop": "100%"}),
        ("tokens_per_s", {"max_drop": "250%"}),
    ],
)
def test_a_timing_has_no_limit_that_none_or_all_are_beyond(name, limits):
    with pytest.raises(SettingsError, match=f"{name}: "):
        Bar.of({"score": {name: limits}}, "here")


def test_a_bar_falls_into_what_is_judged_alone_and_against_a_baseline():
    both = Bar(pass_rate=0.5, score={"f1": {"min": 0.8, "max_drop": 0.1}}, recovery=0.9)
    assert both.alone == Bar(pass_rate=0.5, score={"f1": 0.8})
    change = {"max_drop": 0.1, "max_increase": None}
    assert both.against_baseline == {"recovery": 0.9, "score": {"f1": change}}
    assert Bar(allowed_drop=0.1).alone is None


bars = st.none() | st.builds(
    Bar,
    pass_rate=st.floats(0, 1),
    score=st.none() | st.dictionaries(st.text(max_size=5), st.floats(-5, 5), max_size=3),
    rule=st.sampled_from(["observed", "significant"]),
)
plans = st.lists(
    st.builds(
        ExperimentPlan,
        name=st.text(min_size=1, max_size=8),
        function=st.text(max_size=8),
        collected=st.integers(0, 99),
        ids=st.lists(st.text(max_size=8), max_size=4),
        bar=bars,
        summary=st.none() | st.builds(SummaryFunction, st.text(), st.text()),
    ),
    max_size=4,
    unique_by=lambda plan: plan.name,
).map(lambda experiments: {plan.name: plan for plan in experiments})


@settings(deadline=None, max_examples=60)
@given(plans)
def test_a_plan_is_the_same_after_a_journey_through_its_file(tmp_path_factory, plan):
    path = tmp_path_factory.getbasetemp() / "plan.json"
    write_plan(plan, path)
    assert read_plan(path) == plan


def test_an_experiment_is_partial_if_cases_were_deselected():
    assert ExperimentPlan("a", "t::a", 3, ["x", "y"]).partial
    assert not ExperimentPlan("a", "t::a", 2, ["x", "y"]).partial


# Checks


@pytest.mark.parametrize(
    ("fields", "verdict", "reason"),
    [
        ({"passed": 9}, "PASS", "0.900 reaches 0.9"),
        ({"passed": 10}, "PASS", "1.000 reaches 0.9"),
        ({"passed": 8}, "FAIL", "0.800 is below 0.9"),
        ({"passed": 0}, "FAIL", "0.000 is below 0.9"),
        ({"passed": 10, "errors": 1}, "FAIL", "1 of 11 cases ended in an error"),
        ({"passed": 10, "errors": 1, "collected": 20}, "FAIL", "ended in an error"),
        ({"passed": 10, "collected": 11}, "NOT JUDGED", "only 10 of 11 cases were measured"),
        ({"passed": 0, "collected": 11}, "NOT JUDGED", "only 10 of 11 cases were measured"),
        ({"passed": 0, "n": 0, "skipped": 5}, "NOT JUDGED", "all 5 cases were skipped"),
        ({"passed": 0, "n": 0, "collected": 5}, "NOT JUDGED", "only 0 of 5 cases were measured"),
        ({"passed": 0, "n": 0, "collected": 0}, "NOT JUDGED", "no test of it was collected"),
        ({"passed": 0, "n": 0, "errors": 5}, "NOT JUDGED", "all 5 cases ended in an error"),
        ({"n": 0, "errors": 2, "collected": 9}, "NOT JUDGED", "all 2 cases that ran ended in an"),
    ],
)
def test_the_verdict_on_a_pass_rate(fields, verdict, reason):
    found = check(Bar(pass_rate=0.9), **fields)
    assert found.verdict == verdict
    assert reason in found.reason


@pytest.mark.parametrize(
    ("high", "rule", "verdict"),
    [
        (0.95, "observed", "FAIL"),
        (0.95, "significant", "PASS"),
        (0.9, "significant", "PASS"),
        (0.89, "significant", "FAIL"),
    ],
)
def test_a_significant_bar_fails_only_if_the_whole_interval_lies_below(high, rule, verdict):
    found = check(Bar(pass_rate=0.9, rule=rule), passed=5, interval=(0.2, high))
    assert (found.verdict, found.rule) == (verdict, rule)
    assert "0.500 is below 0.9" in found.reason
    assert ("not significantly" in found.reason) == (verdict == "PASS")


def test_a_score_is_held_against_its_own_bar():
    scores = {"f1": {"mean": 0.7, "ci95": [0.6, 0.8], "n": 10}}
    assert check(Bar(score={"f1": 0.7}), scores=scores).verdict == "PASS"
    assert check(Bar(score={"f1": 0.75}), scores=scores).verdict == "FAIL"
    assert check(Bar(score={"f1": 0.75}, rule="significant"), scores=scores).verdict == "PASS"


def test_a_score_without_an_interval_is_judged_as_it_was_observed():
    scores = {"f1": {"mean": 0.7, "ci95": None, "n": 1}}
    assert check(Bar(score={"f1": 0.75}, rule="significant"), scores=scores).verdict == "FAIL"


def test_a_score_that_no_case_gave_fails_and_is_named():
    found = check(Bar(score={"f1": 0.5}))
    assert (found.verdict, found.value) == ("FAIL", None)
    assert "'f1'" in found.reason


def test_every_bar_gives_a_check_and_an_experiment_without_bars_none():
    scores = {"f1": {"mean": 0.7, "ci95": None, "n": 1}}
    plan = {
        "a": ExperimentPlan("a", "t::a", 10, [], Bar(pass_rate=0.9, score={"f1": 0.5, "em": 1})),
        "b": ExperimentPlan("b", "t::b", 10, []),
    }
    checks = judge(plan, [experiment("a", scores=scores), experiment("b", scores=scores)])
    assert [(c.experiment, c.metric, c.bar) for c in checks] == [
        ("a", "pass_rate", 0.9),
        ("a", "f1", 0.5),
        ("a", "em", 1),
    ]


def test_a_bar_that_nothing_could_fail_passes_nobody():
    assert check(Bar(pass_rate=1e-9), passed=0).verdict == "FAIL"
    assert check(Bar(pass_rate=0), passed=10).verdict == "NOT JUDGED"
    for n in range(1, 40):
        bar = Bar(pass_rate=0.1, rule="significant")
        worst = check(bar, passed=0, n=n, interval=wilson(0, n))
        best = check(bar, passed=n, n=n, interval=wilson(n, n))
        assert (worst.verdict, best.verdict) in (("NOT JUDGED", "NOT JUDGED"), ("FAIL", "PASS"))
        assert (best.verdict == "PASS") == (wilson(0, n)[1] < 0.1)


def test_cases_that_the_limit_left_out_are_missing():
    plan = {"needle": ExperimentPlan("needle", "t::a", 10, [], Bar(pass_rate=0.9), left_out=4)}
    (found,) = judge(plan, [experiment()])
    assert (found.verdict, found.reason) == ("NOT JUDGED", "--llmprobe-limit left out 4 cases")


def test_only_a_bar_of_this_very_model_holds_where_it_cannot_be_asked():
    skipped = experiment(n=0, passed=0, skipped=9)
    for bar, checks in ((Bar(pass_rate=0.9), 0), (Bar(pass_rate=0.9, of_model=True), 1)):
        plan = {"needle": ExperimentPlan("needle", "t::a", 9, [], bar)}
        assert len(judge(plan, [skipped], ["needle"])) == checks
        assert [c.verdict for c in judge(plan, [skipped])] == ["NOT JUDGED"]


def test_a_value_just_below_the_bar_does_not_look_like_the_bar():
    found = check(Bar(pass_rate=0.9), passed=89_999, n=100_000)
    assert found.verdict == "FAIL"
    assert "0.900 is below 0.9" not in found.reason


def test_a_check_in_the_report_follows_the_schema():
    written = json.loads(json.dumps(check(Bar(pass_rate=0.9)).as_dict()))
    definition = schema()["$defs"]["check"] | {"$defs": schema()["$defs"]}
    assert set(definition["required"]) == written.keys()
    assert list(Draft202012Validator(definition).iter_errors(written)) == []


# The run


@pytest.mark.parametrize(
    ("verdicts", "exit_code"),
    [
        (verdicts, exit_code)
        for length in range(3)
        for verdicts in product(("PASS", "FAIL", "NOT JUDGED"), repeat=length)
        for exit_code in range(6)
        if exit_code != 0 or "FAIL" not in verdicts  # a failed check has raised the exit code
    ],
)
def test_the_line_agrees_with_the_exit_code(verdicts, exit_code):
    verdict, reason = run_verdict([verdict_of(v) for v in verdicts], exit_code, 0)
    assert verdict != "FAIL" or exit_code == 1
    assert (verdict == "PASS") == (exit_code == 0 and {*verdicts} == {"PASS"})
    assert verdict == "FAIL" or "FAIL" not in verdicts or exit_code != 1
    assert reason


@pytest.mark.parametrize(
    ("verdicts", "reason"),
    [
        ([], NO_BAR),
        (["PASS", "PASS"], "2 of 2 checks passed"),
        (["PASS", "NOT JUDGED"], "1 of 2 checks could not be judged: needle: because"),
        (["NOT JUDGED"], "1 of 1 checks could not be judged: needle: because"),
    ],
)
def test_a_run_without_failures_says_what_was_judged(verdicts, reason):
    assert run_verdict([verdict_of(v) for v in verdicts], 0, 0)[1] == reason


def test_what_had_to_be_judged_and_could_not_says_what_to_do():
    checks = [verdict_of("NOT JUDGED", f"e{n}") for n in range(5)]
    verdict, reason = run_verdict([*checks, verdict_of("PASS")], 1, 0)
    assert verdict == "NOT JUDGED"
    assert reason.startswith("5 of 6 checks could not be judged: e0: because; e1: because; e2: ")
    assert reason.endswith("and 2 more; run what is missing, or give --no-llmprobe-require-judged")


def test_a_run_of_errors_alone_is_not_called_the_models_failure():
    lost = [experiment(n=0, passed=0, errors=5)]
    said = lost_to_errors(lost, 5, "the server is down")
    assert said == "needle: all 5 cases that ran ended in an error: the server is down"
    assert run_verdict([verdict_of("NOT JUDGED")], 1, 5, lost=said) == ("NOT JUDGED", said)
    assert run_verdict([verdict_of("FAIL")], 1, 6, lost=said)[0] == "FAIL"
    assert lost_to_errors(lost, 6, "x") == ""  # another test failed
    assert lost_to_errors([*lost, experiment(errors=1)], 6, "x") == ""
    assert lost_to_errors([experiment()], 0, "x") == ""


def test_a_failed_run_names_every_failed_check_and_no_other():
    checks = [verdict_of("FAIL", "a", "too low"), verdict_of("PASS", "b"), verdict_of("FAIL", "c")]
    assert run_verdict(checks, 1, 0) == ("FAIL", "a: too low; c: because")


def test_a_run_that_failed_for_another_reason_says_so():
    checks = [verdict_of("FAIL", "a", "too low")]
    assert run_verdict(checks, 1, 0, ["b: broken"]) == ("FAIL", "a: too low; b: broken")
    assert run_verdict([], 1, 2, ["b: broken"]) == ("FAIL", "b: broken")


def test_a_run_that_failed_without_a_gate_counts_its_failures():
    verdict, reason = run_verdict([verdict_of("PASS")], 1, 3)
    assert (verdict, "3" in reason) == ("FAIL", True)


def test_an_interrupted_run_is_not_judged():
    assert run_verdict([verdict_of("PASS")], 2, 0) == ("NOT JUDGED", "the run was interrupted")
    assert run_verdict([verdict_of("PASS")], 5, 0) == ("NOT JUDGED", "exit code 5")


@pytest.mark.parametrize(
    ("limits", "rule", "verdict", "words"),
    [
        ({"max": 0.8}, "observed", "PASS", "loss 0.700 is at most 0.8"),
        ({"max": 0.65}, "observed", "FAIL", "loss 0.700 is above 0.65"),
        ({"max": 0.65}, "significant", "PASS", "but not significantly"),
        ({"max": 0.5}, "significant", "FAIL", "loss 0.700 is above 0.5"),
        ({"min": 0.65}, "observed", "PASS", "reaches"),
        (0.65, "observed", "FAIL", "above"),  # the less loss, the better
    ],
)
def test_the_verdict_on_a_score_that_may_not_be_too_high(limits, rule, verdict, words):
    scores = {"loss": {"mean": 0.7, "ci95": [0.6, 0.8], "n": 10}}
    found = check(Bar(score={"loss": limits}, rule=rule), scores=scores)
    assert found.verdict == verdict
    assert words in found.reason


@pytest.mark.parametrize(
    ("name", "limits", "verdict"),
    [
        ("latency_p95", {"max": 2.0}, "PASS"),
        ("latency_p95", 1.0, "FAIL"),
        ("latency_p50", 1.0, "PASS"),
        ("tokens_per_s", 20, "PASS"),
        ("tokens_per_s", {"min": 50}, "FAIL"),
        ("tokens_per_s", {"max": 20}, "FAIL"),
    ],
)
def test_a_timing_is_a_score_of_every_experiment(name, limits, verdict):
    timings = {"p50_s": 0.5, "p95_s": 1.5, "tokens_per_s": 30.0}
    assert check(Bar(score={name: limits}), timings=timings).verdict == verdict
    nothing = check(Bar(score={name: limits}), timings=dict.fromkeys(timings))
    assert nothing.verdict == "NOT JUDGED"
