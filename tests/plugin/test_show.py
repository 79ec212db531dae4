"""`llmprobe show`: a case of a run, with the whole of its prompt."""

import json

import pytest

from pytest_llmprobe.cli import main

MIDDLE = "the middle"
EVAL = f"""
    import pytest
    from pytest_llmprobe import Case

    def cases():
        for n in range(4):
            text = "left " * 2_000 + "{MIDDLE} %d " % n + "right " * 2_000
            yield Case(f"long/c{{n}}", text, str(n), {{"size": n}})
        yield Case("c1", [{{"role": "system", "content": "be brief"}},
                          {{"role": "user", "content": "say \\x1b[31m red"}}], "1")

    @pytest.mark.probe(cases=cases, max_new_tokens=20)
    def test_echo(case, completion, score):
        score("length", len(completion.text))
        assert completion.text == case.target, "other: it said something else"
"""


@pytest.fixture
def run(project, probe):
    project(EVAL, answer="return '1'")
    return probe()


def shown(capsys, *arguments):
    code = main(["show", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_the_prompt_is_whole(run, capsys):
    code, out = shown(capsys, run.report_path.parent, "long/c2")
    assert code == 0
    assert f"{MIDDLE} 2" in out
    assert MIDDLE not in json.dumps(run.report)
    assert out.splitlines()[:3] == [
        "test_eval.py::test_echo[long/c2]",
        "outcome: missed",
        "explanation: other: it said something else",
    ]
    assert out.endswith("--- received\n1\n\n--- expected\n2\n")


def test_several_are_listed_and_one_that_is_named_is_shown(run, capsys):
    _, out = shown(capsys, run.report_path, "long", "--missed")
    assert out.splitlines() == [
        f"missed   echo[long/c{n}]  other: it said something else" for n in (0, 2, 3)
    ]
    _, out = shown(capsys, run.report_path, "echo[c1]")  # and no part of another's id
    assert "[system] be brief\n[user] say  [31m red\n" in out
    assert "\x1b" not in out


def test_what_missed_is_listed_first(run, capsys):
    _, out = shown(capsys, run.report_path)
    outcomes = [line.split()[0] for line in out.splitlines()]
    assert outcomes == sorted(outcomes, key=["missed", "passed"].index)
    assert set(outcomes) == {"missed", "passed"}


def test_as_json(run, capsys):
    _, out = shown(capsys, run.report_path, "echo[c1]", "--json")
    assert json.loads(out)["prompt"][1] == {"role": "user", "content": "say \x1b[31m red"}


def test_what_is_not_there(run, capsys):
    assert shown(capsys, run.report_path, "long/c9") == (
        4,
        f"llmprobe: {run.report_path} has no case with 'long/c9' in its id; it has 5\n",
    )
    (run.report_path.parent / "prompts.jsonl.xz").unlink()
    code, out = shown(capsys, run.report_path, "long/c2")
    assert code == 0
    assert out.startswith("the prompt's two ends only: ")
