"""What a red run says first."""

import pytest
from some_reports import records, report

from pytest_llmprobe.report.check import Check
from pytest_llmprobe.report.failed_text import MAX_PROMPT, MOST_TOLD, explaining, failed_lines
from pytest_llmprobe.report.gate import CHANGE

UNSAFE = "\x1b[2J\u202e\n::error::x"


def check(name="needle", verdict="FAIL", metric="pass_rate", reason="pass_rate 0.5 is below 0.9"):
    return Check(name, metric, 0.9, "observed", 0.5, verdict, reason)


def said(checks, *given, lost=None, run="runs/1/report.json"):
    by_id = {record.id: record for of_it in given for record in of_it}
    experiments = report(*given)["experiments"]
    find = lambda ids: [by_id[name] for name in sorted(ids)]  # noqa: E731
    return failed_lines(checks, experiments, lost or {}, find, run)


def test_a_failed_gate_has_its_reason_first_misses_and_the_command_for_more():
    prompts = [f"{'x' * 500} what is key {n}?" for n in range(6)]
    lines = said([check(), check("other", "PASS")], records("pmmmmp", prompt=prompts))
    assert lines[:2] == [
        "FAIL needle: pass_rate 0.5 is below 0.9",
        "  the first 3 of 4 missed",
    ]
    assert lines[2] == "    evals/test_needle.py::test_needle[g0001]"
    assert lines[3].startswith("      prompt   ...'xxx")
    assert lines[3].endswith("what is key 1?'")
    assert len(lines[3]) < MAX_PROMPT + 30
    assert lines[4:7] == [
        "      expected 'right'",
        "      received 'wrong'",
        "      because  it is wrong",
    ]
    assert lines[-1] == "  more: llmprobe show runs/1/report.json test_needle --missed"
    assert len(lines) == 2 + 3 * 5 + 1


def test_no_failed_gate_is_no_line():
    assert said([check(verdict="PASS"), check(verdict="NOT JUDGED")], records("mm")) == []


def test_a_lost_change_shows_lost_cases_with_the_earlier_answer():
    name = "evals/test_needle.py::test_needle[g0002]"
    changed = check(metric=CHANGE, reason="lost 1")
    lines = said([check(), changed], records("mmm"), lost={"needle": {name: "it was so"}})
    assert lines[:3] == [
        "FAIL needle: pass_rate 0.5 is below 0.9",
        "FAIL needle: lost 1",
        "  the first 1 of 1 lost",
    ]
    assert lines[3] == f"    {name}"
    assert "      before   'it was so'" in lines


def test_several_experiments_together_show_what_all_lost():
    name = "evals/test_needle.py::test_needle[g0000]"
    lines = said([check("(suite)", metric=CHANGE)], records("m"), lost={"(suite)": {name: None}})
    assert f"    {name}" in lines
    assert "      before   no answer kept" in lines


def test_a_gate_without_missed_cases_has_its_reason_alone():
    assert said([check()], records("pp")) == ["FAIL needle: pass_rate 0.5 is below 0.9"]


def test_many_failed_experiments_are_all_named_and_few_told():
    names = [f"experiment{n}" for n in range(MOST_TOLD + 3)]
    lines = said([check(name) for name in names], *(records("m", name) for name in names))
    assert sum(line.startswith("FAIL ") for line in lines) == len(names)
    assert sum(line.startswith("  more: ") for line in lines) == MOST_TOLD


def test_what_a_model_says_steers_no_terminal():
    lines = said([check()], records("mmm", received=UNSAFE, expected=UNSAFE, prompt=UNSAFE))
    assert all(line.isprintable() for line in lines)
    assert not any(line.lstrip().startswith("::") for line in lines)


def test_a_run_that_was_not_written_names_no_command():
    assert "more" not in " ".join(said([check()], records("mm"), run=None))


def rates(n, **values):
    return {value: {"n": n, "pass_rate": rate} for value, rate in values.items()}


def test_the_breakdown_that_tells_failures_apart_is_shown_lowest_first():
    by = {
        "size": rates(20, short=1.0, middle=0.9, long=0.1),
        "alias": rates(20, a=1.0, b=0.9, c=0.1),
        "trial": rates(20, first=0.65, second=0.7),
    }
    assert explaining(by) == ["by size: long 0.100 of 20, middle 0.900 of 20, short 1.000 of 20"]


@pytest.mark.parametrize(("n", "told"), [(3, False), (4, True)])
def test_few_cases_explain_nothing(n, told):
    # All of 3 against none: Wilson intervals [0.44, 1] and [0, 0.56]; of 4 [0.51, 1], [0, 0.49].
    assert bool(explaining({"depth": rates(n, top=1.0, end=0.0)})) is told


def test_of_many_values_the_lowest_and_the_highest_are_shown():
    (line,) = explaining({"depth": rates(40, **{f"d{n}": n / 10 for n in range(10)})})
    assert line.startswith("by depth: d0 0.000 of 40, d1 0.100 of 40, ")
    assert line.endswith("d4 0.400 of 40, 4 between, d9 0.900 of 40")
