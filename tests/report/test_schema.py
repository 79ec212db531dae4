"""The schema accepts what a run writes and names what it must not."""

import copy
import json
from datetime import datetime, timezone

import pytest
from jsonschema import Draft202012Validator

from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.report.environment import environment
from pytest_llmprobe.report.gate import judge
from pytest_llmprobe.report.plan import Bar, ExperimentPlan
from pytest_llmprobe.report.record import Record
from pytest_llmprobe.report.schema import SCHEMA_VERSION, schema, validate
from pytest_llmprobe.report.summary import summarise

RECORDS = [
    Record("t::a[0]", "a", "passed", scores={"f1": 0.5}, params={"depth": 0}, duration=0.5),
    Record("t::a[1]", "a", "missed", explanation="too short", expected=["x"], received="y"),
    Record("t::a[2]", "a", "error", error="it did not fit"),
    Record("t::a[3]", "a", "skipped"),
]


def small_report():
    plan = {"a": ExperimentPlan("a", "t::a", 4, [r.id for r in RECORDS], Bar(pass_rate=0.5))}
    summary = summarise(plan["a"], RECORDS)
    checks = [check.as_dict() for check in judge(plan, [summary])]
    return {
        "schema_version": SCHEMA_VERSION,
        "model": "reference",
        "timestamp": datetime(2026, 3, 1, tzinfo=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "status": "complete",
        "environment": environment([]),
        "commit": None,
        "config": {"model": "reference", "profile": "ci", "seed": 0},
        "model_info": {},
        "experiments": [summary | {"gate": checks}],
        "gate": {"verdict": "FAIL", "reason": "a: 1 of 4", "checks": checks},
        "comparison": None,
        "self_check": None,
        "texts": None,
        "timings": {"total_s": 1.0, "generation_s": 0.5},
        "tests": [record.as_dict() for record in RECORDS],
    }


REPORT = json.loads(json.dumps(small_report()))


def changed(path, value):
    """The report with something else at a path; with ``...`` in place of a value, without it."""
    report = copy.deepcopy(REPORT)
    place = report
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return report


def objects(definition):
    """Every object definition within a schema."""
    if isinstance(definition, dict):
        if definition.get("type") == "object":
            yield definition
        for inner in definition.values():
            yield from objects(inner)
    elif isinstance(definition, list):
        for inner in definition:
            yield from objects(inner)


def test_the_schema_is_a_schema():
    Draft202012Validator.check_schema(schema())
    assert schema()["properties"]["schema_version"] == {"const": SCHEMA_VERSION}


def test_every_field_of_a_closed_object_is_required():
    closed = [d for d in objects(schema()) if d.get("additionalProperties") is False]
    assert len(closed) > 5
    for definition in closed:
        assert sorted(definition["required"]) == sorted(definition["properties"])


def test_what_a_run_writes_follows_the_schema():
    validate(REPORT)


@pytest.mark.parametrize("commit", [None, {"id": "0" * 40, "dirty": True}])
def test_a_run_in_and_outside_of_git_follows_the_schema(commit):
    validate(changed(["commit"], commit))


@pytest.mark.parametrize("field", sorted(REPORT))
def test_a_report_without_one_of_its_fields_is_refused(field):
    with pytest.raises(ReportError, match=f"'{field}' is a required property"):
        validate(changed([field], ...))


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (["schema_version"], "0.9", "$.schema_version"),
        (["status"], "done", "$.status"),
        (["model"], None, "$.model"),
        (["timestamp"], "2026-03-01T12:00:00+01:00", "$.timestamp"),
        (["timestamp"], "yesterdayZ", "$.timestamp"),
        (["extra"], 1, "$"),
        (["commit"], {"id": "abc"}, "$.commit"),
        (["environment", "cpu", "cores"], 0, "$.environment.cpu.cores"),
        (["config", "seed"], ..., "$.config"),
        (["gate", "verdict"], "MAYBE", "$.gate.verdict"),
        (["experiments", 0, "pass_rate"], 1.5, "$.experiments[0].pass_rate"),
        (["experiments", 0, "ci95"], [0.1], "$.experiments[0].ci95"),
        (["experiments", 0, "errors"], -1, "$.experiments[0].errors"),
        (["experiments", 0, "summary"], None, "$.experiments[0].summary"),
        (["experiments", 0, "summary"], {"error": 5}, "$.experiments[0].summary.error"),
        (["experiments", 0, "gate", 0, "verdict"], "pass", "$.experiments[0].gate[0].verdict"),
        (["tests", 1, "outcome"], "failed", "$.tests[1].outcome"),
        (["tests", 1, "duration"], -0.1, "$.tests[1].duration"),
        (["tests", 1, "chance"], 2, "$.tests[1].chance"),
        (["tests", 1, "scores"], {"f1": "high"}, "$.tests[1].scores.f1"),
        (["tests", 1, "finish_reason"], 7, "$.tests[1].finish_reason"),
        (["tests", 1, "is_correct"], ..., "$.tests[1]"),
        (["tests", 1, "words"], "text", "$.tests[1]"),
    ],
)
def test_what_does_not_follow_the_schema_is_refused_with_its_place(path, value, place):
    with pytest.raises(ReportError) as caught:
        validate(changed(path, value))
    assert f": {place}: " in str(caught.value)


@pytest.mark.parametrize("report", [None, [], "{}", {}, 5])
def test_what_is_no_report_at_all_is_refused(report):
    with pytest.raises(ReportError, match="does not follow its schema"):
        validate(report)
