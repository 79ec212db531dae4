"""A table of situations: what the process exits with and what the last line says always agree."""

import json
import re
from typing import NamedTuple

import pytest
import transformers.integrations.sdpa_attention  # noqa: F401 # forgotten after a run, loads once

EVAL = """
    import os
    import pytest
    from pytest_llmprobe import Case

    cases = [Case(f"g/c{n}", f"say {n}", str(n)) for n in range(6)]

    def summarise(records):
        SUMMARY

    FIXTURE

    @pytest.mark.probe(cases=cases, max_new_tokens=20, summary=summarise)
    GATE
    def test_echo(case, completion, score):
        score("length", len(completion.text))
        TEST
"""
GATE = "@pytest.mark.gate(pass_rate=0.5)"
ONE_WRONG = "assert case.target != '1'"
FOUR_WRONG = "assert int(case.target) > 3"
BROKEN = "assert case.target != '1' or 1 / 0"
OTHER = "def test_other(): assert {}"
TEARDOWN = """
    @pytest.fixture(autouse=True)
    def broken():
        yield
        1 / 0
"""


class Situation(NamedTuple):
    """What is run, what the process exits with, and the verdict; None where no line is due."""

    exit_code: int
    verdict: str | None
    test: str = "assert completion.text == case.target"
    gate: str = GATE
    fixture: str = ""
    summary: str = "return {}"
    arguments: tuple[str, ...] = ()
    other: str = ""
    before: tuple[str, ...] | None = None


TABLE = {
    "all pass": Situation(0, "PASS"),
    "some miss, above the bar": Situation(0, "PASS", ONE_WRONG),
    "many miss, below the bar": Situation(1, "FAIL", FOUR_WRONG),
    "below the bar, within its interval": Situation(
        0, "PASS", FOUR_WRONG, gate="@pytest.mark.gate(pass_rate=0.5, rule='significant')"
    ),
    "no gate": Situation(0, "NOT JUDGED", FOUR_WRONG, gate=""),
    "gates switched off": Situation(
        0, "NOT JUDGED", FOUR_WRONG, arguments=("--llmprobe-gate=none",)
    ),
    "a score above its bar": Situation(
        0, "PASS", FOUR_WRONG, gate="@pytest.mark.gate(score={'length': 1})"
    ),
    "a score below its bar": Situation(1, "FAIL", gate="@pytest.mark.gate(score={'length': 2})"),
    "a score that nobody gave": Situation(4, None, gate="@pytest.mark.gate(score={'x': 2})"),
    "a miss that is to fail": Situation(
        1, "FAIL", ONE_WRONG, arguments=("--llmprobe-misses=fail",)
    ),
    "all pass where misses are to fail": Situation(
        0, "PASS", arguments=("--llmprobe-misses=fail",)
    ),
    "an error in a test": Situation(1, "FAIL", BROKEN),
    "an error in a test without a gate": Situation(1, "FAIL", BROKEN, gate=""),
    "an error with gates switched off": Situation(
        1, "FAIL", BROKEN, arguments=("--llmprobe-gate=none",)
    ),
    "an error before the test": Situation(
        1, "NOT JUDGED", fixture="@pytest.fixture(autouse=True)\n    def broken(): 1 / 0"
    ),
    "an error after the test": Situation(1, "NOT JUDGED", fixture=TEARDOWN),
    "a score that is no number": Situation(1, "NOT JUDGED", "score('x', float('nan'))"),
    "an error of the summary": Situation(1, "FAIL", summary="1 / 0"),
    "part, by keyword": Situation(0, "NOT JUDGED", arguments=("-k", "c1 or c2")),
    "part, by node id": Situation(0, "NOT JUDGED", arguments=("test_eval.py::test_echo[g/c1]",)),
    "part, all wrong": Situation(0, "NOT JUDGED", FOUR_WRONG, arguments=("-k", "c1 or c2")),
    "part, with an error": Situation(1, "FAIL", BROKEN, arguments=("-k", "c1 or c2")),
    "nothing, by keyword": Situation(5, None, arguments=("-k", "nothing")),
    "fewer cases": Situation(0, "NOT JUDGED", arguments=("--llmprobe-limit=2",)),
    "a skipped case": Situation(0, "NOT JUDGED", "case.target == '1' and pytest.skip('no')"),
    "an expected failure": Situation(
        0, "NOT JUDGED", "case.target == '1' and pytest.xfail('known')"
    ),
    "stopped at the first error": Situation(1, "FAIL", BROKEN, arguments=("-x",)),
    "stopped at the first miss": Situation(
        1, "FAIL", ONE_WRONG, arguments=("-x", "--llmprobe-misses=fail")
    ),
    "misses that count do not stop": Situation(0, "PASS", ONE_WRONG, arguments=("-x",)),
    "stopped at the second failure": Situation(
        1,
        "FAIL",
        FOUR_WRONG,
        arguments=("--maxfail=2", "--llmprobe-misses=fail"),
    ),
    "interrupted": Situation(
        2,
        "NOT JUDGED",
        "if case.target == '3': raise KeyboardInterrupt",
    ),
    "an exit of the user's": Situation(7, None, "case.target == '3' and pytest.exit('enough', 7)"),
    "another test fails": Situation(1, "FAIL", other=OTHER.format(False)),
    "another test passes": Situation(0, "PASS", other=OTHER.format(True)),
    "only another test, which fails": Situation(
        1, None, other=OTHER.format(False), arguments=("test_other.py",)
    ),
    "only another test, which passes": Situation(
        0, None, other=OTHER.format(True), arguments=("test_other.py",)
    ),
    "another file cannot be collected": Situation(2, "NOT JUDGED", other="1 / 0"),
    "another file cannot be collected, go on": Situation(
        1, "FAIL", other="1 / 0", arguments=("--continue-on-collection-errors",)
    ),
    "a marker that cannot be": Situation(4, None, gate="@pytest.mark.gate(pass_rate=2)"),
    "no file": Situation(4, None, arguments=("nowhere",)),
    "only collected": Situation(0, None, arguments=("--collect-only", "-q")),
    "an unknown model": Situation(4, None, arguments=("--model=nothing-like-it",)),
    "an unknown option": Situation(4, None, arguments=("--llmprobe-nothing",)),
    "no such baseline": Situation(4, None, arguments=("--llmprobe-compare=nothing",)),
    "a baseline's gate without a baseline": Situation(
        4, None, arguments=("--llmprobe-gate=baseline",)
    ),
    "as the baseline": Situation(
        0, "PASS", before=("--llmprobe-save=a",), arguments=("--llmprobe-compare=a",), gate=""
    ),
    "a baseline of other cases": Situation(
        1,
        "NOT JUDGED",
        before=("--llmprobe-save=a", "--llmprobe-limit=1"),
        arguments=("--llmprobe-compare=a", "-k", "c5"),
        gate="",
    ),
}


WITH_WORKERS = {
    "stopped at the first error": (2, "NOT JUDGED"),
    "stopped at the first miss": (2, "NOT JUDGED"),
    "stopped at the second failure": (2, "NOT JUDGED"),
    "an exit of the user's": (3, None),
    "another file cannot be collected": (1, "FAIL"),
    "no file": (5, None),
}
"""Where xdist itself ends otherwise."""


def write(pytester, project, situation):
    text = EVAL
    for name in ("SUMMARY", "FIXTURE", "GATE", "TEST"):
        text = text.replace(name, getattr(situation, name.lower()))
    project(text)
    if situation.other:
        pytester.makepyfile(test_other=situation.other)


@pytest.mark.parametrize("name", TABLE)
def test_exit_code_and_last_line(project, pytester, mode, name):
    situation = TABLE[name]
    write(pytester, project, situation)
    # In this process, which has everything imported: the table is long.
    if situation.before is not None:
        assert pytester.runpytest_inprocess("-p", "no:xdist", *situation.before).ret == 0
    result = pytester.runpytest_inprocess(*mode, *situation.arguments, no_reraise_ctrlc=True)
    text = result.stdout.str()
    lines = re.findall(r"^llmprobe: GATE (PASS|FAIL|NOT JUDGED) \(", text, re.MULTILINE)
    expected = situation.exit_code, situation.verdict
    if mode == ("-n", "2"):
        expected = WITH_WORKERS.get(name, expected)
    assert (int(result.ret), lines[-1] if lines else None) == expected, text
    assert len(lines) <= 1
    if lines:
        assert {"FAIL": result.ret == 1, "PASS": result.ret == 0}.get(lines[0], True)
        (*_, report) = sorted(pytester.path.glob(".llmprobe/runs/*/report.json"))
        assert json.loads(report.read_text())["gate"]["verdict"] == lines[0]


def test_the_table_is_long_enough():
    assert len(TABLE) >= 25
