"""A real run says why cases missed: in the record, on the terminal, in JUnit XML, to GitHub."""

from xml.etree import ElementTree

import pytest

EVAL = """
    import pytest
    from pytest_llmprobe import Case, RawPrompt

    def cases():
        for number in range(6):
            prompt = f"say {number}"
            yield Case(f"c{number}", RawPrompt(prompt) if RAW else prompt, f"{number}")

    @pytest.mark.probe(cases=cases, max_new_tokens=16 OPTIONS)
    GATE
    def test_echo(case, completion, score):
        name = "length"  # no name that could be checked before the run
        score(name, len(completion.text))
        assert completion.text == case.target, SAID
"""
GATE = "@pytest.mark.gate(pass_rate=0.9, score={'length': 1, 'absent': 1})"
TALKS = "return prompt.split()[-1] + ' and so on' * 9"


def evaluation(said="'wrong: ' + completion.text", gate="", raw=False, options=""):
    made = EVAL.replace("RAW", str(raw)).replace("SAID", said).replace("GATE", gate)
    return made.replace(" OPTIONS", options)


def explanations(run):
    return {test["explanation"] for test in run.report["tests"]}


@pytest.mark.parametrize("said", ["'wrong: it is'", "'it is no number'", "'no 5 is in it'"])
def test_a_miss_that_was_cut_off_says_so_before_any_other_word(project, probe, said):
    project(evaluation(said), TALKS)
    run = probe()
    assert explanations(run) == {f"cut_off: the answer ended at 16 tokens; {said[1:-1]}"}
    assert run.experiment["failures"] == {"cut_off": 6}
    assert run.experiment["finish_reasons"] == {"length": 6}
    cut = {"n": 6, "answers": 6, "tokens": [16, 16], "in_thought": 0}
    assert run.experiment["cut_off"] == cut
    assert {test["cut_off_at"] for test in run.report["tests"]} == {16}
    lines = run.text.splitlines()
    assert "echo: 6 of 6 answers cut off at 16 tokens" in lines
    assert "echo: missed 6 of 6: cut_off 6" in lines
    warning = next(line for line in lines if line.startswith("warning: more than 10% of the"))
    assert warning.endswith("in echo (6 of 6): give more room with --llmprobe-max-new-tokens x2")
    assert lines.index(warning) > len(lines) - 6


@pytest.mark.parametrize(
    "said", ["'other_value: it says 7'", "'en: it is English'", "'cut_off: of old'"]
)
def test_an_answer_that_is_wrong_already_keeps_its_word(project, probe, said):
    project(evaluation(said), TALKS)
    assert explanations(probe()) == {said[1:-1]}


def test_a_text_that_is_to_go_on_is_not_cut_off(project, probe):
    project(evaluation("'it goes on'", raw=True), TALKS)
    run = probe()
    assert explanations(run) == {"it goes on"}
    assert run.experiment["finish_reasons"] == {"length": 6}
    assert run.experiment["cut_off"]["n"] == 0
    assert "cut off" not in run.text


def test_a_raw_text_that_has_an_end_is(project, probe):
    project(evaluation("'it goes on'", raw=True, options=", stop='END'"), TALKS)
    assert probe().experiment["failures"] == {"cut_off": 6}


def test_a_case_that_passed_though_cut_off_is_counted_and_no_failure(project, probe):
    project(evaluation().replace("completion.text ==", "completion.text[0] =="), TALKS)
    run = probe()
    assert run.outcomes == {"passed": 6}
    assert (run.experiment["cut_off"]["n"], run.experiment["failures"]) == (6, {})


def test_an_answer_that_ended_is_not_cut_off(project, probe):
    project(evaluation(gate=GATE), "return 'no'")
    run = probe()
    assert run.experiment["failures"] == {"wrong": 6}
    assert "cut off" not in run.text
    lines = run.text.splitlines()
    table = next(n for n, line in enumerate(lines) if line.startswith("experiment "))
    place = lines.index("echo: the first 3 of 6 missed")
    assert lines[place - 1].startswith("FAIL echo: ")
    assert place < table
    assert [line.strip() for line in lines[place + 1 : place + 6]] == [
        "test_eval.py::test_echo[c0]",
        "prompt   'say 0'",
        "expected '0'",
        "received 'no'",
        "because  wrong: no",
    ]


def junit(path):
    (suite,) = ElementTree.parse(path).iter("testsuite")
    cases = [c for c in suite.iter("testcase") if c.get("classname") == "llmprobe.gate"]
    return suite, {case.get("name"): [child.tag for child in case] for case in cases}


def test_junit_has_a_test_case_for_each_check(project, probe, pytester):
    project(evaluation(gate=GATE), "return 'no'")
    run = probe("--junitxml=junit.xml")
    assert run.exit_code == 1
    suite, gates = junit(pytester.path / "junit.xml")
    failed = ["echo: absent", "echo: pass_rate"]
    assert gates == {"echo: length": [], **{name: ["failure"] for name in failed}}
    assert {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "9",
        "failures": "2",
        "errors": "0",
        "skipped": "0",
    }
    (failure,) = (f for f in suite.iter("failure") if "0.000 is below 0.9" in f.text)
    assert "test_eval.py::test_echo[c0]\n    expected '0'\n    received 'no'" in failure.text
    assert "6 missed" in run.text
    assert "failed" not in run.text.splitlines()[-1]


def test_a_check_that_was_not_judged_is_skipped_in_junit(project, probe, pytester):
    project(evaluation(gate=GATE), "return 'no'")
    probe("--junitxml=junit.xml", "-k", "c0")
    suite, gates = junit(pytester.path / "junit.xml")
    assert set(map(tuple, gates.values())) == {("skipped",)}
    (one, *_) = suite.iter("skipped")
    assert "only 1 of 6 cases were measured" in one.get("message")


def test_no_gate_is_no_test_case(project, probe, pytester):
    project(evaluation(), "return 'no'")
    probe("--junitxml=junit.xml")
    assert junit(pytester.path / "junit.xml")[1] == {}


@pytest.mark.parametrize("job", ["true", ""])
def test_github_is_told_of_failed_gates_just_before_the_verdict(project, probe, monkeypatch, job):
    monkeypatch.setenv("GITHUB_ACTIONS", job)
    project(evaluation(gate=GATE), "return 'no'")
    lines = probe().text.splitlines()
    told = [line for line in lines if line.startswith("::")]
    shown = [
        "::error title=llmprobe%3A echo%3A pass_rate::pass_rate 0.000 is below 0.9",
        "::error title=llmprobe%3A echo%3A absent::no case gave the score 'absent'; scores: length",
    ]
    assert told == (shown if job else [])
    place = next(n for n, line in enumerate(lines) if line.startswith("report: "))
    assert lines[place - 2 : place] == told or not job
