"""Real pytest runs on a model that thinks: options, records, misses, replay."""

import json
from textwrap import dedent

import pytest
from thinkers import ANSWER, FAMILIES, THOUGHT, save

from pytest_llmprobe.report.schema import validate

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    CASES = [Case("a", "Which city?", "Paris")]

    @pytest.mark.probe(cases=CASES, max_new_tokens=8)
    def test_city(case, completion):
        assert completion.text == '{"city": "Paris"}', "wrong: another text"
"""


@pytest.fixture
def run(pytester):
    save(next(iter(FAMILIES.values())), pytester.path / "model")
    pytester.makepyfile(test_eval=dedent(EVAL))

    def run(*options):
        report = pytester.path / "run" / "report.json"
        result = pytester.runpytest_inprocess(
            "-p", "no:xdist", "--model=./model", f"--llmprobe-json={report}", *options
        )
        found = json.loads(report.read_text()) if report.exists() else None
        if found is not None:
            validate(found)
        return result, found

    return run


def test_a_thought_is_recorded_and_replayed(run):
    _, report = run("--llmprobe-thinking=on", "--llmprobe-thinking-tokens=20")
    (test,) = report["tests"]
    assert (test["outcome"], test["received"]) == ("passed", "".join(ANSWER))
    assert test["thought"] == "".join(THOUGHT)
    told = {name: report["config"][name] for name in ("thinking", "thinking_tokens", "template")}
    assert told == {"thinking": "on", "thinking_tokens": 20, "template": {}}
    assert report["model_info"]["template"] == {"enable_thinking": True}
    on = ("--llmprobe-thinking=on", "--llmprobe-thinking-tokens=20")
    _, again = run("--llmprobe-replay=run", *on)
    assert again["tests"][0]["thought"] == test["thought"]
    result, _ = run("--llmprobe-replay=run", on[0])
    result.stderr.fnmatch_lines(["*was made with --llmprobe-thinking-tokens 20*"])


def test_a_shared_engine_thinks_alike(run):
    _, report = run("--llmprobe-thinking=on", "--llmprobe-engine=shared")
    (test,) = report["tests"]
    assert (test["received"], test["thought"]) == ("".join(ANSWER), "".join(THOUGHT))


def test_by_itself_the_switch_is_off(run):
    _, report = run()
    (test,) = report["tests"]
    assert (test["outcome"], test["thought"]) == ("passed", None)
    assert report["config"]["thinking"] == "off"
    assert report["model_info"]["template"] == {"enable_thinking": False}


def test_a_thought_that_is_cut_off_is_a_miss_that_says_so(run):
    _, report = run("--llmprobe-template=enable_thinking=true", "--llmprobe-thinking-tokens=3")
    (test,) = report["tests"]
    assert (test["outcome"], test["received"]) == ("missed", "")
    words = "cut_off: 3 tokens ended within its thought; wrong: another text"
    assert test["explanation"] == words
    assert report["config"]["template"] == {"enable_thinking": True}


def test_an_unknown_argument_is_told_before_anything_is_loaded(run):
    result, report = run("--llmprobe-template=enable_thoughts=true")
    result.stderr.fnmatch_lines(["*does not mention it*It knows: enable_thinking*"])
    assert (result.ret, report) == (4, None)
    result, _ = run("--llmprobe-template=enable")
    result.stderr.fnmatch_lines(["*'enable' is not KEY=VALUE*"])
