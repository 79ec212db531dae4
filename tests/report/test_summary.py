"""Summaries: every case is counted once, where it belongs."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pytest_llmprobe.report.files import to_json
from pytest_llmprobe.report.plan import ExperimentPlan
from pytest_llmprobe.report.record import Record
from pytest_llmprobe.report.schema import schema
from pytest_llmprobe.report.summary import MAX_VALUES, summarise
from pytest_llmprobe.statistics.intervals import rate_interval, wilson

many = settings(deadline=None, max_examples=150)
ONE_EXPERIMENT = Draft202012Validator({"$ref": "#/$defs/experiment", "$defs": schema()["$defs"]})
OUTCOMES = ["passed", "missed", "error", "skipped"]


def record(number, outcome="passed", **fields):
    return Record(f"t::a[{number}]", "a", outcome, **fields)


def records_of(outcomes, **fields):
    return [record(number, outcome, **fields) for number, outcome in enumerate(outcomes)]


def summary(records, collected=None):
    ids = [r.id for r in records]
    collected = len(ids) if collected is None else collected
    return summarise(ExperimentPlan("a", "t::a", collected, ids), records)


@many
@given(st.lists(st.sampled_from(OUTCOMES), max_size=30))
def test_every_case_is_counted_once(outcomes):
    found = summary(records_of(outcomes))
    assert found["passed"] + found["missed"] == found["n"]
    assert found["n"] + found["errors"] + found["skipped"] == found["reported"] == len(outcomes)
    for key, outcome in zip(("passed", "missed", "errors", "skipped"), OUTCOMES, strict=True):
        assert found[key] == outcomes.count(outcome)


@many
@given(st.lists(st.sampled_from(OUTCOMES), max_size=30))
def test_errors_and_skips_do_not_enter_the_pass_rate(outcomes):
    found = summary(records_of(outcomes))
    judged = [outcome for outcome in outcomes if outcome in ("passed", "missed")]
    if judged:
        assert found["pass_rate"] == pytest.approx(judged.count("passed") / len(judged))
        assert found["ci95"] == list(wilson(judged.count("passed"), len(judged)))
    else:
        assert (found["pass_rate"], found["ci95"], found["ci95_clustered"]) == (None, None, None)


def test_records_are_gone_through_once():
    records = records_of(OUTCOMES * 3, group="g", chance=0.1, scores={"f1": 0.5}, size=3)
    plan = ExperimentPlan("a", "t::a", 12, [r.id for r in records])
    assert summarise(plan, iter(records)) == summarise(plan, records)


def test_collected_selected_and_reported_are_three_numbers():
    plan = ExperimentPlan("a", "t::a", 10, ["t::a[0]", "t::a[1]", "t::a[2]"])
    found = summarise(plan, records_of(["passed", "missed"]))
    assert (found["collected"], found["selected"], found["reported"]) == (10, 3, 2)


def test_cases_of_one_haystack_are_a_cluster_and_others_stand_alone():
    grouped = [record(n, "passed" if n < 4 else "missed", group=f"h{n // 2}") for n in range(8)]
    alone = [record(n, r.outcome) for n, r in enumerate(grouped)]
    passed = [r.outcome == "passed" for r in grouped]
    found = summary(grouped)
    assert found["ci95_clustered"] == list(rate_interval(passed, [n // 2 for n in range(8)]))
    assert found["ci95_clustered"][0] < found["ci95"][0]
    assert summary(alone)["ci95_clustered"] == pytest.approx(summary(alone)["ci95"])


def test_chance_is_the_mean_over_the_judged_cases_that_have_one():
    records = [
        record(0, chance=0.2),
        record(1, "missed", chance=0.1),
        record(2),
        record(3, "error", chance=1.0),
    ]
    assert summary(records)["chance"] == pytest.approx(0.15)
    assert summary(records_of(["passed"]))["chance"] is None


def test_a_score_is_averaged_over_the_judged_cases_that_gave_it():
    records = [
        record(0, scores={"f1": 0.5}),
        record(1, "missed", scores={"f1": 0.25, "exact": 0.0}),
        record(2, "error", scores={"f1": 100.0}),
        record(3),
    ]
    scores = summary(records)["scores"]
    assert scores.keys() == {"f1", "exact"}
    assert (scores["f1"]["mean"], scores["f1"]["n"]) == (0.375, 2)
    assert scores["f1"]["ci95"][0] < 0.375 < scores["f1"]["ci95"][1]
    assert scores["exact"] == {"mean": 0.0, "n": 1, "ci95": list(wilson(0, 1))}


def test_a_graded_score_of_one_case_has_no_interval():
    assert summary([record(0, scores={"f1": 0.5})])["scores"]["f1"]["ci95"] is None


def timings(durations):
    records = [record(n, duration=d, generated_tokens=4) for n, d in enumerate(durations)]
    return summary(records)["timings"]


@many
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(durations):
    found = timings(durations)
    for name, per_cent in (("p50_s", 50), ("p95_s", 95)):
        enough = [
            value
            for value in durations
            if 100 * sum(d <= value for d in durations) >= per_cent * len(durations)
        ]
        assert found[name] == min(enough)


@pytest.mark.parametrize(
    ("durations", "p50", "p95"),
    [([7], 7, 7), ([1, 2], 1, 2), ([1, 2, 3], 2, 3), ([4, 3, 2, 1], 2, 4), (range(1, 21), 10, 19)],
)
def test_percentiles_by_hand(durations, p50, p95):
    found = timings(durations)
    assert (found["p50_s"], found["p95_s"]) == (p50, p95)


def test_tokens_and_seconds_are_added_up_over_all_cases():
    records = [
        record(0, duration=1.5, prompt_tokens=10, generated_tokens=4),
        record(1, "missed", duration=0.5, prompt_tokens=5, generated_tokens=6),
        record(2, "error", prompt_tokens=7),
    ]
    found = summary(records)["timings"]
    assert (found["generation_s"], found["tokens_per_s"]) == (2.0, 5.0)
    assert (found["prompt_tokens"], found["generated_tokens"]) == (22, 10)


def test_a_run_that_generated_nothing_has_no_speed():
    found = summary(records_of(["error"]))["timings"]
    assert (found["p50_s"], found["p95_s"], found["tokens_per_s"]) == (None, None, None)


def test_pass_rates_are_broken_down_by_what_tells_cases_apart():
    records = [
        record(0, "passed", size=5, params={"depth": 0, "style": "a"}),
        record(1, "missed", size=5, params={"depth": 50, "style": "a"}),
        record(2, "missed", size=20, params={"depth": 0, "style": "a"}),
        record(3, "error", size=20, params={"depth": 0, "style": "a"}),
    ]
    assert summary(records)["by"] == {
        "size": {"5": {"n": 2, "pass_rate": 0.5}, "20": {"n": 1, "pass_rate": 0.0}},
        "depth": {"0": {"n": 2, "pass_rate": 0.5}, "50": {"n": 1, "pass_rate": 0.0}},
    }


@pytest.mark.parametrize(("values", "shown"), [(MAX_VALUES, True), (MAX_VALUES + 1, False)])
def test_what_differs_in_nearly_every_case_is_no_grouping(values, shown):
    records = [record(n, params={"name": f"n{n}"}) for n in range(values)]
    assert ("name" in summary(records)["by"]) == shown


def test_lists_and_nothing_are_no_groupings():
    records = [record(0, params={"a": [1], "b": None}), record(1, params={"a": [2], "b": 1})]
    assert summary(records)["by"] == {}


cases = st.builds(
    record,
    st.integers(0, 5),
    st.sampled_from(OUTCOMES),
    group=st.none() | st.sampled_from("gh"),
    size=st.none() | st.integers(1, 3) | st.sampled_from(["s", "l"]),
    scores=st.dictionaries(st.sampled_from("ab"), st.floats(-5, 5)),
    chance=st.none() | st.floats(0, 1),
    duration=st.floats(0, 100),
    generated_tokens=st.integers(0, 9),
    params=st.dictionaries(st.sampled_from("xy"), st.booleans() | st.text(max_size=2)),
)


@many
@given(st.lists(cases, max_size=12))
def test_every_summary_follows_the_schema(records):
    written = json.loads(to_json(summary(records) | {"gate": []}))
    assert [error.message for error in ONE_EXPERIMENT.iter_errors(written)] == []
