"""Choices and measured texts in real runs, on a scripted model."""

import json
import signal
from dataclasses import replace

import pytest

from pytest_llmprobe import Case, RawPrompt, Suite
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.plugin.case_building import check_choices_fit

CHOICES = """
    import pytest
    from pytest_llmprobe import Case, RawPrompt

    def cases(suite):
        for number in range(40):
            right = "yes" if number % 4 else "no"
            prompt = RawPrompt(f"Question {number}? Say {right}")
            yield Case(f"c{number}", prompt, choices=["yes", "no"], target="yes", chance=0.5)

    def texts():
        yield Case("t", RawPrompt("abc"))

    @pytest.mark.probe(cases=cases)
    @pytest.mark.gate(pass_rate=0.7, score={"margin": 0.5})
    def test_choice(case, choice):
        assert choice.acc, choice.problem

    @pytest.mark.probe(cases=texts)
    def test_text(case, text_likelihood):
        assert text_likelihood.bytes == 3

    @pytest.mark.probe(cases=cases, dataset="mine")
    def test_mine(case, choice):
        assert choice.acc
"""
ANSWER = "return ' ' + prompt.split()[-1] if prompt else 'abx'"


def test_choices_are_recorded_gated_and_resumed(project, probe):
    project(CHOICES, ANSWER)
    run = probe()
    assert (run.exit_code, run.verdict) == (0, "PASS")
    assert run.outcomes == {"missed": 10, "passed": 31}  # and test_mine is absent
    choice, text = sorted(run.report["experiments"], key=lambda one: one["name"])
    assert choice["pass_rate"] == 0.75
    assert choice["scores"]["acc"]["mean"] == 0.75
    missed = run.tests["test_choice[c0]"]
    assert (missed["expected"], missed["received"], missed["failure"]) == (
        "yes",
        "no",
        "other_choice",
    )
    assert missed["params"]["log_likelihoods"] == [-3, 0]  # a nat a character that is not said
    assert (missed["scores"]["margin"], missed["scores"]["greedy"]) == (-3, 0)
    assert missed["generated_tokens"] == 0
    assert missed["prompt_tokens"] > 10
    assert text["scores"]["log_likelihood"]["mean"] == -1
    again = probe("--llmprobe-replay", str(run.report_path.parent))
    assert again.outcomes == run.outcomes
    scores = {name: test["scores"] for name, test in run.tests.items()}
    assert {name: test["scores"] for name, test in again.tests.items()} == scores


KILLED = f"""
        import os, signal
        with open("asked", "a") as file:
            file.write(prompt + chr(10))
        if os.path.exists("dies") and len(open("asked").readlines()) > 65:
            os.remove("dies")
            os.kill(os.getpid(), signal.SIGKILL)
        {ANSWER}"""
UNITS = CHOICES.replace('f"c{number}"', 'f"g{number // 5}/c{number % 5}"')


@pytest.mark.parametrize("mode", [("-n", "0")], ids=[""])
def test_a_kill_loses_no_choice(project, probe, pytester):
    project(UNITS, KILLED)
    whole = probe()
    asked = pytester.path / "asked"
    total = len(asked.read_text().splitlines())
    asked.unlink()
    (pytester.path / "dies").touch()
    killed = pytester.runpytest_subprocess("-n", "0")
    assert killed.ret == -signal.SIGKILL
    assert 0 < len(asked.read_text().splitlines()) < total
    folder = max((pytester.path / ".llmprobe" / "runs").iterdir())
    kept = sum(line.startswith(b'{"key": ') for line in answers(folder))
    assert kept == 60  # of the unit before the one that it died in: 30 cases in groups of 5
    again = probe(f"--llmprobe-resume={folder}")
    assert again.outcomes == whole.outcomes
    scores = {name: test["scores"] for name, test in whole.tests.items()}
    assert {name: test["scores"] for name, test in again.tests.items()} == scores
    assert len(asked.read_text().splitlines()) <= total + 6  # those of its last unit


def answers(folder):
    return (folder / "completions.jsonl").read_bytes().splitlines()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('choices=["yes", ""]', "choices[1] is empty"),
        ('choices=["yes", "yes"]', "choices differ"),
        ('choices=["no", "never"]', "is none of the choices"),
    ],
)
def test_bad_choices_fail_before_the_model_is_asked(project, pytester, change, said):
    project(CHOICES.replace('choices=["yes", "no"]', change), "raise SystemError")
    result = pytester.runpytest_subprocess("-p", "no:xdist")
    assert result.ret == 4
    assert said in result.stderr.str()
    assert "SystemError" not in result.stdout.str()


def test_generation_options_hold_for_every_experiment(project, pytester):
    project()
    where = pytester.path / "r.json"
    arguments = ("-p", "no:xdist", "--llmprobe-generate", "temperature=0.7,top_p=0.9")
    pytester.runpytest_subprocess(*arguments, "--llmprobe-json", str(where))
    report = json.loads(where.read_text())
    assert report["config"]["generate"] == {"temperature": 0.7, "top_p": 0.9}
    assert report["experiments"][0]["generation"]["top_p"] == 0.9


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("temperature", "give NAME=NUMBER"),
        ("warmth=1", "unknown option 'warmth'"),
        ("top_p=2", "top_p"),
        ("temperature=hot", "is no number"),
        ("max_new_tokens=3", "--llmprobe-max-new-tokens"),
    ],
)
def test_generation_options_that_cannot_be_used(project, pytester, given, said):
    project()
    result = pytester.runpytest_subprocess("-p", "no:xdist", "--llmprobe-generate", given)
    assert result.ret == 4
    assert said in result.stderr.str()


class Words:
    """Counts a word as a token; a context of 40."""

    context_length, has_template = 40, False

    def count(self, prompt):
        return len(prompt.text.split())


def test_a_choice_longer_than_the_context_is_named_with_its_row():
    suite = Suite(counter=Words())
    fitting = Case("c", RawPrompt("word " * 39), choices=["one word", "two"], target="two")
    check_choices_fit([fitting], suite)
    for change in ({"choices": ["two", "one word more"]}, {"ending": "and more"}):
        long = replace(fitting, metadata={"row": "a.jsonl line 7"}, **change)
        with pytest.raises(CasesError, match=r"case 'c' \(a.jsonl line 7\): .* context is 40"):
            check_choices_fit([long], suite)
