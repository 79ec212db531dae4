"""The evaluation of summaries in French: its cases, and what models get for them."""

import json
from pathlib import Path
from runpy import run_path

import pytest

from pytest_llmprobe.case import check_cases
from pytest_llmprobe.data.sources import read_datasets
from pytest_llmprobe.engine.engine import Engine
from pytest_llmprobe.engine.scripted import ScriptedModel
from pytest_llmprobe.experiments.french_summary import stories
from pytest_llmprobe.generation import GenerateConfig
from pytest_llmprobe.models.registry import resolve
from pytest_llmprobe.models.token_counter import TokenCounter
from pytest_llmprobe.report.record import build_record
from pytest_llmprobe.report.summary_function import checked
from pytest_llmprobe.suite import Suite
from pytest_llmprobe.whitebox.bert_score import BertScore

EVAL = run_path(
    str(Path(__file__).parents[3] / "evals" / "french_summary" / "test_french_summary.py")
)


@pytest.fixture(scope="module")
def counter():
    return TokenCounter(resolve("reference"))


def build(counter, *options, **more):
    return list(EVAL["french_summaries"](Suite(*options, counter=counter, **more)))


def same_words(candidate, reference):
    """In place of an encoder: the share of the reference's words that the candidate has."""
    wanted = reference.split()
    share = sum(word in candidate.split() for word in wanted) / len(wanted)
    return BertScore(share, share, share)


def judge(cases, answer, bert_score=None):
    """For each case its record."""
    (mark,) = (m for m in EVAL["test_french_summary"].pytestmark if m.name == "probe")
    options = {key: value for key, value in mark.kwargs.items() if key not in ("cases", "summary")}
    options["max_new_tokens"] = 2_000  # a scripted model's tokens are characters
    completions = Engine(ScriptedModel(answer)).generate(
        [case.prompt for case in cases], GenerateConfig.of(**options)
    )
    for case, completion in zip(cases, completions, strict=True):
        scores, miss = {}, None
        try:
            EVAL["test_french_summary"](case, completion, scores.__setitem__, bert_score)
        except AssertionError as error:
            miss = str(error).partition("\n")[0]
        outcome = "passed" if miss is None else "missed"
        yield build_record(f"test[{case.id}]", "f", outcome, case, [completion], scores, miss)


def test_the_grid_is_lengths_texts_phrasings_styles_and_generations(counter):
    cases = check_cases(build(counter), "french_summary")
    assert len(cases) == 3 * 9 * 3  # of each text three of nine forms
    for key, values in {
        "size": {500, 1_000, 2_000},
        "trial": {0},
        "style": {"plain", "capitals", "important"},
        "phrasing": {
            stories.instruction(phrasing, "French") for phrasing in stories.INSTRUCTIONS[:3]
        },
    }.items():
        assert {case.metadata[key] for case in cases} == values
    for case in cases:
        phrasing, style = case.metadata["phrasing"], case.metadata["style"]
        said = {
            "plain": phrasing,
            "capitals": phrasing.upper(),
            "important": f"IMPORTANT: {phrasing}",
        }
        assert case.prompt.startswith(said[style] + "\n\n")
        assert case.spans[0].text == said[style]
        assert case.prompt.endswith("\n\nSummary:")


def test_three_texts_have_all_forms_and_each_text_every_phrasing_and_style_once(counter):
    forms = {}
    for case in build(counter):
        of_text = forms.setdefault((case.metadata["size"], case.group), set())
        of_text.add((case.metadata["phrasing"], case.metadata["style"]))
    assert len(forms) == 3 * 9
    for of_text in forms.values():
        assert [len(set(each)) for each in zip(*of_text, strict=True)] == [3, 3]
    for size in (500, 1_000, 2_000):
        of_size = [of_text for (at, _), of_text in forms.items() if at == size]
        for three in (of_size[:3], of_size[3:6], of_size[6:]):
            assert len(set().union(*three)) == 9


def test_generations_share_their_prompt_and_cases_of_a_text_their_group(counter):
    cases = build(counter, "smoke", trials=3)
    groups = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)
    assert len(groups) == 2
    for members in groups.values():
        assert len({case.target for case in members}) == 1
        assert len({case.prompt for case in members}) * 3 == len(members)


def test_the_published_set_up_on_texts_of_ones_own(tmp_path):
    texts = [{"text": f"number {n} " + "word " * 300} for n in range(30)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, texts)))
    datasets = read_datasets(["french_summary=t.jsonl"], tmp_path)
    cases = check_cases(build(None, "full", datasets=datasets, trials=2), "french_summary")
    assert len(cases) == 20 * 3 * 3 * 2  # all of them in one length bin
    first = cases[0]
    assert first.prompt.startswith("Summarize in french:  \n number ")
    assert first.target is None
    assert first.metadata["size"] == 500
    assert first.metadata["source"].startswith("t.jsonl (30 texts, sha256 ")
    assert first.metadata["bert_score"].startswith("not measured: no French summary in")


def test_a_model_that_obeys_passes_and_its_summaries_score_best(counter):
    cases = build(counter, "smoke")
    right = {case.prompt: case.target for case in cases}
    for record in judge(cases, right.__getitem__, same_words):
        assert record.outcome == "passed"
        assert record.scores == {"bert_score": 1}


ENGLISH = "She lives in Lyon. Last summer, she sold a blue lamp on the beach."
FRENCH = "Elle habite à Lyon. L'été dernier, elle a vendu une lampe bleue sur la plage."
WRONG = {
    "another language": (ENGLISH, "en"),
    "nothing": ("", "empty"),
    "white space": (" \n ", "empty"),
    "numbers": ("12 34", "undetectable"),
    "both languages": ("Yes, in French: oui.", "undetectable"),
}


@pytest.mark.parametrize(("answer", "word"), WRONG.values(), ids=WRONG)
def test_a_model_that_does_not_obey_passes_nothing_and_its_failure_has_a_name(
    counter, answer, word
):
    cases = build(counter, "smoke")
    for record in judge(cases, lambda _: answer):
        assert record.outcome == "missed"
        assert record.explanation.partition(":")[0] == word
        assert record.scores == {}


def test_french_about_something_else_passes_and_bert_score_says_so(counter):
    for record in judge(build(counter, "smoke"), lambda _: FRENCH, same_words):
        assert record.outcome == "passed"
        assert record.scores["bert_score"] < 0.5


def test_the_summary_has_every_answer_in_its_denominator(counter):
    cases = build(counter, "smoke", trials=2)
    answers = dict.fromkeys((case.prompt for case in cases), "")
    answers |= {case.prompt: FRENCH for case in cases if case.metadata["style"] == "capitals"}
    records = list(judge(cases, answers.__getitem__))
    summary = checked(EVAL["summarise"](records))
    assert [(p["value"], p["n"], p["pass_rate"]) for p in summary["by_length"]] == [(500, 4, 0)]
    styles = summary["style_by_length"]
    assert styles["rows"] == ["capitals", "important", "plain"]
    assert (styles["n"], styles["pass_rate"]) == ([[4]] * 3, [[1.0], [0.0], [0.0]])
    assert [(p["value"], p["n"]) for p in summary["by_phrasing"]] == [
        ("Summarize the following text in French.", 4)
    ]
    assert summary["bert_score"].startswith("not measured: ")
    assert "by_delta" not in summary


def test_bert_scores_are_in_the_summary_where_there_are_some(counter):
    cases = build(counter, "smoke")
    summary = EVAL["summarise"](list(judge(cases, lambda _: FRENCH, same_words)))
    assert [point["value"] for point in summary["bert_score"]] == ["capitals", "important", "plain"]
