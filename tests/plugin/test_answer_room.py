"""Room for answers in real runs: the case's own, what the user makes of it, and where it shows."""

import pytest

from pytest_llmprobe.case import RawPrompt
from pytest_llmprobe.models.registry import REGISTRY
from pytest_llmprobe.models.token_counter import TokenCounter
from pytest_llmprobe.report.schema import validate

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    def cases(suite):
        room = suite.room("word", margin=6)
        for name, own in {"own": room, "marker": None, "small": 3}.items():
            case = Case(name, "say: 123456789 123456789", max_new_tokens=own)
            yield suite.with_examples(case, lambda rng: ("say:", "solved"))

    @pytest.mark.probe(cases=cases, max_new_tokens=8)
    def test_say(case, completion, generate):
        again = generate(case.prompt)
        assert completion.text == again.text
        assert "solved" not in case.prompt, case.prompt
"""
OWN = TokenCounter(REGISTRY["reference"]).count(RawPrompt("word")) + 6
ANSWER = "return '0123456789' * 4"


def rooms(run):
    return {name.partition("[")[2][:-1]: test["max_new_tokens"] for name, test in run.tests.items()}


@pytest.fixture
def said(project, probe):
    """Run, and give the report's rooms; the answers are as long as these."""
    project(EVAL, ANSWER)

    def said(*options):
        run = probe(*options)
        assert run.exit_code == 0, run.text
        for test in run.report["tests"]:
            assert len(test["received"]) == test["max_new_tokens"]
            assert test["finish_reason"] == "length"
        validate(run.report)
        return run

    return said


def test_a_case_has_its_own_room_and_else_the_markers(said):
    run = said()
    assert rooms(run) == {"own": OWN, "marker": 8, "small": 3}
    assert run.report["config"]["max_new_tokens"] == "x1"
    assert run.experiment["generation"]["max_new_tokens"] == max(OWN, 8)


@pytest.mark.parametrize(("given", "expected"), [("5", (5, 5, 5)), ("x0.5", (-(-OWN // 2), 4, 2))])
def test_the_user_replaces_or_scales_every_room(said, given, expected):
    run = said(f"--llmprobe-max-new-tokens={given}")
    assert rooms(run) == dict(zip(("own", "marker", "small"), expected, strict=True))
    assert run.report["config"]["max_new_tokens"] == given


@pytest.mark.parametrize("given", ["0", "-3", "2x", "x", "x0", "xnan", "1.5", "twice"])
def test_what_is_no_room_is_a_usage_error(pytester, given):
    run = pytester.runpytest_subprocess(f"--llmprobe-max-new-tokens={given}")
    assert run.ret == 4
    run.stderr.fnmatch_lines(["*--llmprobe-max-new-tokens: *is not a *number*"])


def test_examples_are_shown_where_the_user_wants_them(project, probe):
    project(EVAL, ANSWER)
    run = probe("--llmprobe-few-shot=2")
    assert run.outcomes == {"missed": 3}
    assert all(test["prompt"].count("solved") == 2 for test in run.report["tests"])
    assert run.report["config"]["few_shot"] == 2


def test_answers_of_another_room_are_not_taken_for_those_of_this_one(project, probe):
    project(EVAL, ANSWER)
    first = probe()
    folder = first.report_path.parent
    again = probe(f"--llmprobe-resume={folder}", "--llmprobe-max-new-tokens=x2")
    assert rooms(again) == {"own": 2 * OWN, "marker": 16, "small": 6}
    assert {len(test["received"]) for test in again.report["tests"]} == {2 * OWN, 16, 6}


def test_a_replay_has_the_rooms_of_its_run(project, probe):
    project(EVAL, ANSWER)
    first = probe()
    same = probe(f"--llmprobe-replay={first.report_path.parent}")
    assert same.outcomes == {"passed": 3}
    assert rooms(same) == rooms(first)


def test_a_replay_with_another_room_is_refused(project, pytester):
    project(EVAL, ANSWER)
    first = pytester.runpytest_subprocess("--llmprobe-json=run/report.json")
    assert first.ret == 0
    again = pytester.runpytest_subprocess("--llmprobe-replay=run", "--llmprobe-max-new-tokens=x2")
    assert again.ret == 4
    words = "was made with --llmprobe-max-new-tokens x1, and this session has x2"
    again.stderr.fnmatch_lines([f"ERROR: llmprobe: *{words}"])
