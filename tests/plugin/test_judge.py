"""The fixture ``judge``: a second model's answers, kept, replayed, and asked in both orders."""

import json
from types import SimpleNamespace

import pytest

from pytest_llmprobe.engine import Engine, ScriptedModel
from pytest_llmprobe.plugin.asking import trace_of
from pytest_llmprobe.plugin.judge import MOST, Judge, verdict

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    @pytest.mark.probe(cases=[Case("a", "say a"), Case("b", "say b")])
    def test_it(case, completion, judge, score):
        said = judge(f"Grade: {completion.text}", max_new_tokens=4)
        score("tokens", said.usage.generated_tokens)
        many = judge([f"x {case.id}", f"y {case.id}"], max_new_tokens=2)
        assert len(many) == 2
"""


@pytest.fixture
def mode():
    return ("-n", "2")


@pytest.fixture
def judged(project, probe):
    project(EVAL)
    return probe


def verdicts(run):
    return {test["id"]: test["params"]["judge"] for test in run.report["tests"]}


def test_what_a_judge_says_is_kept_and_replayed_without_it(judged):
    run = judged("--llmprobe-judge=reference")
    assert run.outcomes == {"passed": 2}
    assert run.report["config"]["judge"] == "reference"
    said = verdicts(run)
    assert all(len(texts) == 3 for texts in said.values())
    lines = (run.report_path.parent / "judge.jsonl").read_text().splitlines()
    kept = [record["key"] for record in map(json.loads, filter(None, lines)) if "key" in record]
    assert len(set(kept)) == 6  # one that ends before its batch stands twice, at last with its time
    again = judged("--llmprobe-replay", str(run.report_path.parent))
    assert verdicts(again) == said
    assert again.report["config"]["judge"] is None


def test_without_a_judge_the_test_is_skipped_and_says_what_to_give(judged):
    run = judged("-rs")
    assert run.outcomes == {"skipped": 2}
    assert "this needs a judge: give --llmprobe-judge MODEL" in run.text


def test_an_unknown_judge_is_a_usage_error_before_anything_is_asked(judged):
    run = judged("--llmprobe-judge=refernce")
    assert run.exit_code == 4
    assert "unknown model 'refernce'" in run.text


@pytest.fixture
def asked(request):
    """A judge that answers by a function, and what it was asked."""

    def asked(answer):
        prompts = []
        model = ScriptedModel(lambda prompt: prompts.append(prompt) or answer(prompt))
        run = SimpleNamespace(options=SimpleNamespace(suite=SimpleNamespace(seed=0)))
        return Judge(run, request.node, Engine(model)), prompts

    return asked


GOOD, BAD = "It rains as vapour cools.", "Because."


def prefers_good(prompt):
    return "A" if prompt.index(GOOD) < prompt.index(BAD) else "The better one is B."


@pytest.mark.parametrize(
    ("answer", "worth"),
    [
        (prefers_good, 1.0),
        (lambda prompt: "A", 0.5),
        (lambda prompt: "TIE", 0.5),
        (lambda prompt: "B" if prefers_good(prompt) == "A" else "A", 0.0),
        (lambda prompt: "neither, a pity", None),
    ],
    ids=["the first", "always the place", "a tie", "the second", "no verdict"],
)
def test_two_answers_are_compared_in_both_orders(asked, request, answer, worth):
    judge, prompts = asked(answer)
    assert judge.prefers("Why does it rain?", GOOD, BAD) == worth
    assert [prompt.index(GOOD) < prompt.index(BAD) for prompt in prompts] == [True, False]
    assert len(trace_of(request.node).details["judge"]) == 2


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("A", 1.0),
        ("**B**", 0.0),
        ("Answer A.", 1.0),
        ("b\nIt says more.", 0.0),
        ("TIE: both are right, A and B alike", 0.5),
        ("I find answer B better.", 0.0),
        ("A better answer is B", None),
        ("A is better than B", None),
        ("neither", None),
        ("", None),
    ],
)
def test_a_verdict_is_the_first_word_or_the_only_answer_named(text, worth):
    assert verdict(text) == worth


def test_what_the_record_keeps_is_bounded(asked, request):
    judge, _ = asked(lambda prompt: "x" * 3 * MOST)
    assert len(judge("q", max_new_tokens=10_000).text) == 3 * MOST
    assert trace_of(request.node).details["judge"] == ["x" * MOST]


def test_a_judge_that_fails_is_no_miss(asked):
    def broken(prompt):
        raise AssertionError("broken")

    judge, _ = asked(broken)
    with pytest.raises(RuntimeError, match="the judge failed: broken"):
        judge("q")
