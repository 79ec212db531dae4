"""GitHub annotations, read as its runner reads them."""

import pytest
from some_reports import records, report

from pytest_llmprobe.report.annotations import MAX_ANNOTATIONS, github_annotations, is_wanted
from pytest_llmprobe.report.comparison import compare
from pytest_llmprobe.report.run_file import reduce_report

HOSTILE = "a%0A::error::b\r\n::set-output name=x::y, z:%25\x1b[2J"


DATA = {"%0D": "\r", "%0A": "\n", "%25": "%"}
PROPERTY = {"%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ",", "%25": "%"}


def decoded(text, escapes):
    for escape, character in escapes.items():
        text = text.replace(escape, character)
    return text


def read(line):
    """Level, properties and message, decoded in the way of GitHub's runner (ActionCommand.cs)."""
    assert len(line.splitlines()) == 1
    assert line.startswith("::")
    head, _, message = line[2:].partition("::")
    level, _, rest = head.partition(" ")
    given = dict(pair.split("=", 1) for pair in rest.split(","))
    return level, decoded(given["title"], PROPERTY), decoded(message, DATA)


def check(verdict="FAIL", name="needle", reason="too low"):
    return {"experiment": name, "metric": "pass_rate", "verdict": verdict, "reason": reason}


def annotated(made, checks, comparison=None):
    return [read(line) for line in github_annotations(made["experiments"], checks, comparison)]


def test_each_failed_check_is_an_error():
    checks = [check(), check("PASS"), check("NOT JUDGED"), check(name="other", reason="50% less")]
    assert annotated(report(records("pm")), checks) == [
        ("error", "llmprobe: needle: pass_rate", "too low"),
        ("error", "llmprobe: other: pass_rate", "50% less"),
    ]


def test_cases_without_a_result_are_an_error():
    made = report(records("pe"))
    made["experiments"][0]["selected"] = 5
    said = "1 in error, 3 selected but never ran"
    assert annotated(made, []) == [("error", "llmprobe: needle: cases without a result", said)]


def lost(answer, n):
    first, second = (
        report(records("p" * 30)),
        report(records("m" * n + "p" * (30 - n), received=answer)),
    )
    return second, compare(reduce_report(first), reduce_report(second))


def test_a_lost_case_is_an_error_where_its_gate_failed_and_a_warning_elsewhere():
    second, comparison = lost("bad", 1)
    said = "evals/test_needle.py::test_needle[g0000]: 'right' -> 'bad'"
    (warning,) = annotated(second, [check("PASS")], comparison)
    assert warning == ("warning", "llmprobe: needle: lost case", said)
    _, error = annotated(second, [check()], comparison)
    assert error == ("error", "llmprobe: needle: lost case", said)


def test_there_are_no_more_than_github_shows_and_failed_gates_come_first():
    second, comparison = lost("bad", 25)
    found = annotated(second, [check()], comparison)
    assert len(found) == MAX_ANNOTATIONS
    assert found[0][1] == "llmprobe: needle: pass_rate"


def test_what_a_model_says_ends_no_command():
    second, comparison = lost(HOSTILE * 50, 1)
    second["experiments"][0]["name"] = HOSTILE
    made = [check(name=HOSTILE, reason=HOSTILE)]
    lines = github_annotations(second["experiments"], made, comparison)
    for line in lines:
        level, title, message = read(line)
        assert level in ("error", "warning")
        assert title.startswith("llmprobe: ")
        assert len(message) < 1_000
        assert (title + message).isprintable()
    assert "a%0A::error::b" in read(lines[0])[1]


@pytest.mark.parametrize(("value", "wanted"), [("true", True), ("false", False), ("", False)])
def test_only_a_job_of_github_is_annotated(monkeypatch, value, wanted):
    monkeypatch.setenv("GITHUB_ACTIONS", value)
    assert is_wanted() == wanted
