"""The evaluation of needles in prose: its cases, its controls, and what models get for them."""

import random
from pathlib import Path
from runpy import run_path

import pytest

from pytest_llmprobe.case import check_cases, prompt_text
from pytest_llmprobe.data.prose import is_held_out, prose
from pytest_llmprobe.data.sources import read_datasets
from pytest_llmprobe.engine.engine import Engine
from pytest_llmprobe.engine.scripted import ScriptedModel
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.haystack import text_needle
from pytest_llmprobe.generation import GenerateConfig, Request
from pytest_llmprobe.suite import Suite

EVAL = run_path(str(Path(__file__).parents[3] / "evals" / "haystack" / "test_text_needle.py"))
BUILDERS = {
    "text_needle": "text_needles",
    "text_decoys": "text_decoys",
    "closed_book": "closed_books",
}
every_eval = pytest.mark.parametrize("name", BUILDERS)
solvable = pytest.mark.parametrize("name", ["text_needle", "text_decoys"])


def build(name, suite):
    return list(EVAL[BUILDERS[name]](suite))


def judge(name, cases, answer):
    """For each case the miss, or None."""
    marks = {mark.name: mark for mark in EVAL[f"test_{name}"].pytestmark}
    options = dict(marks["probe"].kwargs)
    assert options.pop("cases") is EVAL[BUILDERS[name]]
    options.pop("summary", None)
    config = GenerateConfig.of(**options)
    completions = Engine(ScriptedModel(answer)).generate(
        [Request.of_case(case, config) for case in cases]
    )
    for case, completion in zip(cases, completions, strict=True):
        try:
            EVAL[f"test_{name}"](case, completion)
        except AssertionError as miss:
            yield str(miss).partition("\n")[0]
        else:
            yield None


def suite_on(tmp_path, text, profile="ci", **options):
    (tmp_path / "a.txt").write_text(text)
    datasets = read_datasets(["haystack=a.txt"], tmp_path)
    return Suite(profile, datasets=datasets, **options)


# Cases


def test_the_prompts_are_those_that_the_reference_model_is_trained_on():
    assert EVAL["PROMPTS"] == text_needle.PROMPTS


@pytest.mark.parametrize("profile", ["smoke", "ci"])
@every_eval
def test_every_case_has_its_own_id_and_its_text_has_its_size(name, profile):
    cases = check_cases(build(name, Suite(profile)), name)
    assert {case.metadata["task"] for case in cases} == {name}
    for case in cases:
        size = case.metadata["size"]
        assert 0.8 * size < len(case.prompt) < size + 500
        assert case.prompt == case.prompt.strip()
        assert 0 <= case.chance <= 1


@solvable
def test_every_case_is_solvable_and_its_names_are_held_out(name):
    for case in build(name, Suite()):
        fact, others = text_needle.read_task(case.prompt)
        assert fact.value == case.target
        assert fact.kind == case.metadata["kind"]
        assert len(others) == (2 if name == "text_decoys" else 0)
        assert {other.kind for other in others} <= {fact.kind}
        assert all(is_held_out(one.name) for one in (fact, *others))
        assert case.chance == text_needle.CHANCE[fact.kind]


def test_a_closed_book_cannot_be_solved():
    for case in build("closed_book", Suite()):
        with pytest.raises(CasesError, match="0 values"):
            text_needle.solve(case.prompt)
        assert not text_needle.says(case.prompt, case.target) or case.metadata["kind"] != "number"
        assert case.chance == 1 - text_needle.CHANCE[case.metadata["kind"]]


@solvable
def test_the_depth_that_is_reached_is_recorded(name):
    for case in build(name, Suite()):
        text = case.prompt.split("\n\n")[2 if case.metadata["question"] != "end" else 1]
        sentence = text_needle.read_task(case.prompt)[0].sentence
        before = 100 * text.index(sentence) / (len(text) - len(sentence))
        assert case.metadata["depth_reached"] == pytest.approx(before, abs=0.5)
        assert case.metadata["depth_reached"] <= case.metadata["depth"]


def test_a_place_of_the_question_changes_neither_text_nor_needle():
    texts = {}
    for case in build("text_needle", Suite()):
        key = tuple(case.metadata[key] for key in ("size", "trial", "depth"))
        text = max(case.prompt.split("\n\n"), key=len)
        assert texts.setdefault(key, (text, case.target)) == (text, case.target)
    assert len(set(texts.values())) == len(texts)


def test_the_cases_of_a_group_share_what_comes_before_their_needles():
    groups = {}
    for case in build("text_needle", Suite()):
        if case.metadata["question"] == "end":
            groups.setdefault(case.group, []).append(case)
    assert groups
    for cases in groups.values():
        deepest, second = cases[-1].prompt, cases[-2].prompt
        needle = text_needle.read_task(second)[0].sentence
        assert deepest.startswith(second[: second.index(needle)])


@every_eval
def test_the_cases_depend_on_the_seed_and_on_nothing_else(name):
    first, again, other = (build(name, Suite(seed=seed)) for seed in (5, 5, 6))
    assert first == again
    assert [case.id for case in first] == [case.id for case in other]
    assert not {case.prompt for case in first} & {case.prompt for case in other}


@every_eval
def test_more_trials_add_cases_and_change_none(name):
    few = {case.id: case for case in build(name, Suite(trials=1))}
    more = {case.id: case for case in build(name, Suite(trials=3))}
    assert len(more) == 3 * len(few)
    assert all(more[case_id] == case for case_id, case in few.items())


@every_eval
def test_smoke_is_small_and_ci_is_not_large(name):
    smoke, ci = (len(build(name, Suite(profile))) for profile in ("smoke", "ci"))
    assert smoke <= 9
    assert smoke < ci <= 45


def test_the_full_profile_is_the_grid_of_the_paper_and_beyond():
    cases = build("text_needle", Suite("full", trials=1))
    assert {case.metadata["depth"] for case in cases} == set(range(0, 101, 10))
    sizes = {case.metadata["size"] for case in cases}
    assert {4 * tokens for tokens in range(500, 4501, 500)} < sizes
    assert max(sizes) == 200_000


# Texts of one's own


@every_eval
def test_texts_of_ones_own_replace_the_generated_prose(name, tmp_path):
    text = prose(random.Random(3), 200)
    for case in build(name, suite_on(tmp_path, text)):
        assert case.metadata["source"].startswith("a.txt (1 text, sha256 ")
        shown = max(case.prompt.split("\n\n"), key=len)
        facts = text_needle.read_task(case.prompt) if name != "closed_book" else (None, [])
        for fact in (facts[0], *facts[1]):
            shown = shown.replace(fact.sentence, "") if fact else shown
        assert " ".join(shown.split()) in text
        assert 0.8 * case.metadata["size"] < len(shown)


def test_a_size_beyond_ones_own_texts_is_left_out(tmp_path):
    cases = build("text_needle", suite_on(tmp_path, "A sentence of words. " * 100))
    assert {case.metadata["size"] for case in cases} == {500, 1_500}


def test_too_little_text_is_an_error_with_the_numbers(tmp_path):
    with pytest.raises(CasesError, match="19 characters of text are too few for a haystack of 500"):
        build("text_needle", suite_on(tmp_path, "This is too little."))


def test_text_without_sentences_and_with_braces_is_used_too(tmp_path):
    cases = build("text_needle", suite_on(tmp_path, "{text} {0} %s\n" * 500))
    for case in cases:
        assert text_needle.solve(case.prompt) == case.target
        assert 0.8 * case.metadata["size"] < len(case.prompt)


# Scripted models


@pytest.mark.parametrize("profile", ["smoke", "ci"])
@solvable
def test_a_perfect_model_passes_every_case(name, profile):
    cases = build(name, Suite(profile))
    for answer in (text_needle.solve, lambda prompt: f"The answer is {text_needle.solve(prompt)}."):
        assert set(judge(name, cases, answer)) == {None}


@pytest.mark.parametrize("answer", ["unknown", "", "The text does not say."])
def test_a_model_that_knows_nothing_passes_the_closed_book(answer):
    cases = build("closed_book", Suite())
    assert set(judge("closed_book", cases, lambda _: answer)) == {None}


def test_a_model_that_knows_what_it_was_not_told_misses_the_closed_book():
    cases = build("closed_book", Suite())
    told = {case.prompt: case.target for case in cases}
    for miss in judge("closed_book", cases, lambda prompt: f"It is {told[prompt]}."):
        assert miss.startswith("known: ")


def decoy(prompt):
    return text_needle.read_task(prompt)[1][0].value


WRONG = {
    "nothing": ("text_needle", lambda _: "", "no_answer"),
    "unknown": ("text_needle", lambda _: "unknown", "no_value"),
    "a part of the value": ("text_needle", lambda p: text_needle.solve(p) + "xy", "glued"),
    "a decoy": ("text_decoys", decoy, "decoy"),
    "a decoy too": ("text_decoys", lambda p: f"{text_needle.solve(p)}, {decoy(p)}", "hedged"),
}


@pytest.mark.parametrize(("name", "answer", "word"), WRONG.values(), ids=WRONG)
def test_a_wrong_model_passes_nothing_and_its_failure_has_a_name(name, answer, word):
    cases = [case for case in build(name, Suite()) if case.metadata["size"] == 500]
    misses = list(judge(name, cases, answer))
    assert misses
    for miss in misses:
        assert miss is not None
        assert miss.partition(":")[0] == word


class Characters:
    """Counts a token a character, for a model of 1,000 tokens."""

    context_length = 1_000
    has_template = True

    def count(self, prompt):
        return len(prompt_text(prompt))


def test_what_the_context_has_no_room_for_is_left_out_and_said(tmp_path):
    suite = Suite("ci", counter=Characters())
    assert {case.metadata["size"] for case in build("text_needle", suite)} == {500}
    reason = "the model's context is 1,000 tokens"
    assert suite.said() == [f"left out 1,500 characters, 3,500 characters: {reason}"]
    own = suite_on(tmp_path, "A lake is deep. " * 300, counter=Characters())
    assert {case.metadata["size"] for case in build("text_needle", own)} == {500}
    assert own.said() == suite.said()


def test_sizes_beyond_the_users_texts_are_left_out_and_said(tmp_path):
    suite = suite_on(tmp_path, "A lake is deep. " * 100)
    assert {case.metadata["size"] for case in build("text_needle", suite)} == {500, 1_500}
    (remark,) = suite.said()
    assert remark.startswith("left out 3,500 characters: the texts have 1,")
