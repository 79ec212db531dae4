"""The evaluations of attention steering: their cases, and what models get for them."""

import json
import statistics
from dataclasses import replace
from itertools import islice
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from pytest_llmprobe.case import check_cases
from pytest_llmprobe.data.sources import read_datasets
from pytest_llmprobe.engine.engine import Engine
from pytest_llmprobe.engine.scripted import ScriptedModel
from pytest_llmprobe.errors import SteeringError
from pytest_llmprobe.experiments.json_format import documents
from pytest_llmprobe.generation import GenerateConfig, Request, Steer, delta_grid
from pytest_llmprobe.models.loading import load_model
from pytest_llmprobe.models.registry import resolve
from pytest_llmprobe.models.token_counter import TokenCounter
from pytest_llmprobe.report.record import build_record
from pytest_llmprobe.report.summary_function import checked
from pytest_llmprobe.suite import PROFILES, Suite
from pytest_llmprobe.whitebox.predictors import Predictors
from pytest_llmprobe.whitebox.spans import locate_with

FOLDER = Path(__file__).parents[3] / "evals" / "steering"
EVALS = {
    name: run_path(str(FOLDER / f"test_steered_{name}.py")) for name in ("french", "json", "needle")
}
CASES = {"french": "steered_summaries", "json": "steered_objects", "needle": "steered_needles"}
COUNTER = TokenCounter(resolve("reference"))


def build(name, *options, **more):
    cases = EVALS[name][CASES[name]](Suite(*options, counter=COUNTER, **more))
    return check_cases(cases, name)


def function_of(name):
    return EVALS[name][f"test_steered_{name}"]


def options_of(name, profile="ci"):
    (mark,) = (mark for mark in function_of(name).pytestmark if mark.name == "probe")
    return {
        option: value[profile] if isinstance(value, dict) else value
        for option, value in mark.kwargs.items()
    }


def at_each_delta(cases, deltas):
    """As the plugin asks them."""
    for case in cases:
        if not case.spans:
            yield case
        for delta in deltas if case.spans else ():
            name = f"{case.id}-delta-{delta:g}"
            yield replace(case, id=name, metadata={**case.metadata, "delta": delta})


def run(name, cases, engine, predictors):
    """The records of cases that an engine answers, as the plugin would make them."""
    options = options_of(name)
    config = GenerateConfig.of(
        **{k: v for k, v in options.items() if k not in ("cases", "summary", "delta")}
    )
    requests = [
        Request.of_case(
            case, config, Steer(case.spans, case.metadata["delta"]) if case.spans else None
        )
        for case in cases
    ]
    for case, completion in zip(cases, engine.generate(requests), strict=True):
        scores, miss = {}, None
        given = {
            "case": case,
            "completion": completion,
            "score": scores.__setitem__,
            "predictors": predictors,
        }
        if name == "french":
            given |= {"bert_score": None, "unsteered": None, "optional_judge": None}
        try:
            function_of(name)(**given)
        except AssertionError as error:
            miss = str(error).partition("\n")[0]
        outcome = "passed" if miss is None else "missed"
        node_id = f"evals/test_steered_{name}.py::test_steered_{name}[{case.id}]"
        yield build_record(node_id, name, outcome, case, [completion], scores, miss)


# Cases


@pytest.mark.parametrize("name", EVALS)
@pytest.mark.parametrize("profile", ["smoke", "ci"])
def test_every_span_is_found_among_the_reference_models_tokens(name, profile):
    tokenizer = load_model("reference").tokenizer
    for case in build(name, profile, trials=1)[::5]:
        for span in case.spans:
            located = locate_with(tokenizer, case.prompt, span)
            assert located.spans[0].text.strip() == span.text


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", EVALS)
def test_the_grid_suppresses_and_raises_and_has_the_unsteered_model(name, profile):
    grid = delta_grid(options_of(name, profile)["delta"])
    assert list(grid) == sorted(grid)
    assert grid[0] < 0 < grid[-1]
    assert 0 in grid


@pytest.mark.parametrize(("name", "styled"), [("french", 500), ("json", 1_600)])
def test_the_baselines_are_asked_without_steering(name, styled):
    by_style = {}
    for case in build(name):
        if case.metadata["size"] == styled:  # in others steering alone is measured
            by_style.setdefault(case.metadata["style"], []).append(case)
        else:
            assert case.metadata["style"] == "plain"
    assert set(by_style) == {"plain", "capitals", "important"}
    assert all(case.spans for case in by_style["plain"])
    for style in ("capitals", "important"):
        assert not any(case.spans for case in by_style[style])
        assert {case.group for case in by_style[style]} == {
            case.group for case in by_style["plain"]
        }
    for case in by_style["important"]:
        assert case.prompt.startswith("IMPORTANT: ")
    for case in by_style["capitals"]:
        assert case.prompt.split("\n\n")[0] != case.prompt.split("\n\n")[0].lower()


@pytest.mark.parametrize("name", EVALS)
def test_the_cases_depend_on_the_seed_and_on_nothing_else(name):
    assert build(name, "smoke", seed=5) == build(name, "smoke", seed=5)
    first, second = ({c.prompt for c in build(name, "smoke", seed=n)} for n in (5, 6))
    assert not first & second
    assert len({case.group for case in build(name, "smoke", seed=5)}) > 1


@pytest.mark.parametrize("profile", PROFILES)
def test_the_whole_instruction_is_steered_and_the_word_is_a_task_of_its_own(profile):
    cases = EVALS["french"]["steered_summaries"](Suite(profile, counter=COUNTER, trials=1))
    spans = {}
    for case in islice(cases, 200):
        if case.spans:
            spans.setdefault((case.metadata["task"], case.metadata["span"]), []).append(case)
    whole, word = ("steered_french", "instruction"), ("steered_french_word", "word")
    assert spans.keys() == ({whole} if profile == "smoke" else {whole, word})
    assert {case.spans[0].text for case in spans.get(word, ())} <= {"French"}
    assert all(case.prompt.split("\n\n")[0] == case.spans[0].text for case in spans[whole])
    prompts = {case.prompt for case in spans[whole]}
    assert {case.prompt for case in spans.get(word, ())} <= prompts


def test_texts_of_ones_own_are_steered_as_published(tmp_path):
    texts = [{"text": f"number {n} in French " + "word " * 250} for n in range(9)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, texts)))
    datasets = read_datasets(["french_summary=t.jsonl"], tmp_path)
    cases = list(EVALS["french"]["steered_summaries"](Suite("smoke", datasets=datasets)))
    plain = [case for case in cases if case.spans]
    assert {case.spans[0].text for case in plain} == {
        "Summarize in french:",
        "You must summarize the following text in french:",
    }
    assert {case.metadata["span"] for case in plain} == {"instruction"}
    assert all(case.prompt.startswith(case.spans[0].text) for case in plain)


@pytest.mark.parametrize("profile", ["ci", "full"])
def test_the_types_of_json_are_said_and_not_steered(profile):
    for case in build("json", profile, trials=1):
        if case.spans:
            (span,) = case.spans
            assert span.text == documents.instruction(list(json.loads(case.target)))
            types = documents.types(documents.schema(case.metadata["kind"]))
            assert case.prompt.startswith(f"{span.text}\n\n{types}\n\n")


def test_oracle_and_question_are_spans_of_one_prompt():
    groups = {}
    for case in build("needle"):
        groups.setdefault(case.group, {})[case.metadata["span"]] = case
    for group in groups.values():
        oracle, question = group["oracle"], group["question"]
        assert oracle.prompt == question.prompt
        assert oracle.spans[0].text.endswith(f"is {oracle.target}.")
        assert question.spans[0].text.endswith("?")


# Controls


def right_answers(cases):
    return {case.prompt: case.target for case in cases}.__getitem__


@pytest.mark.parametrize("name", EVALS)
def test_a_right_model_passes_everything_and_a_wrong_one_nothing(name):
    cases = list(at_each_delta(build(name, "smoke"), [0]))
    if name == "french":  # its tokens are characters here
        cases = [replace(case, target=case.target[:150]) for case in cases]
    engine = Engine(ScriptedModel(right_answers(cases)))
    predictors = Predictors(engine.backend.encode, None)
    records = list(run(name, cases, engine, predictors))
    assert {record.outcome for record in records} == {"passed"}
    for record in records:
        measured = "delta" in record.params
        assert ("inverse_length" in record.scores) == measured
        assert "influence" not in record.scores
    wrong = list(run(name, cases, Engine(ScriptedModel(lambda _: "No.")), predictors))
    assert {record.outcome for record in wrong} == {"missed"}


@pytest.mark.parametrize("name", EVALS)
def test_a_model_that_cannot_be_steered_never_answers_unsteered(name):
    cases = list(at_each_delta(build(name, "smoke"), [1]))
    engine = Engine(ScriptedModel(lambda _: ""))
    with pytest.raises(SteeringError, match="no attention to steer"):
        list(run(name, cases, engine, None))


@pytest.fixture(scope="module")
def reference():
    return Engine(load_model("reference"))


def test_steering_moves_the_reference_model_in_both_directions(reference):
    """The control: an instruction that it follows sometimes, suppressed and raised."""
    few = [case for case in build("json", trials=3) if case.spans]
    cases = list(at_each_delta(few, [-4, 0, 2]))
    predictors = Predictors(reference.backend.encode, reference.backend.loaded)
    records = list(run("json", cases, reference, predictors))
    rates = {
        delta: statistics.fmean(r.is_correct for r in records if r.params["delta"] == delta)
        for delta in (-4, 0, 2)
    }
    assert rates[-4] < rates[0] < rates[2]
    assert rates[-4] <= 0.34
    assert rates[2] >= 0.75
    for record in records:
        known = {"influence", "rollout", "raw_attention", "inverse_length"} & set(record.scores)
        assert len(known) == (4 if record.params["delta"] == 0 else 0)
    summary = checked(options_of("json")["summary"](records))
    gained = {
        entry["delta"]: entry["gained"] - entry["lost"] for entry in summary["against_delta_0"]
    }
    assert gained[-4] < 0 < gained[2]


def test_suppressing_the_word_takes_french_from_the_reference_model(reference):
    """The control of the French task: this model reads the word, not the whole instruction."""
    words = [case for case in build("french") if case.metadata["span"] == "word"]
    records = list(run("french", list(at_each_delta(words, [-5, 0])), reference, no_predictors))
    summary = checked(options_of("french")["summary"](records))
    suppressed, unsteered = summary["word: by_delta"]
    assert suppressed["pass_rate"] < unsteered["pass_rate"]
    (change,) = summary["word: against_delta_0"]
    assert change["lost"] >= 2 + change["gained"]


def no_predictors(*_, **__):
    return {}


def test_a_model_with_random_weights_gains_nothing(reference):
    few = [c for c in build("needle", "smoke") if c.metadata["span"] == "oracle"]
    engine = Engine(load_model("reference-random"))
    predictors = Predictors(engine.backend.encode, engine.backend.loaded)
    records = list(run("needle", list(at_each_delta(few, [0, 2])), engine, predictors))
    assert {record.outcome for record in records} == {"missed"}


# Summaries


@pytest.mark.parametrize("name", EVALS)
def test_the_summary_of_a_sweep_is_ready_for_the_report(name):
    """Where half of the texts are answered."""
    cases = list(at_each_delta(build(name, "smoke"), [0]))
    groups = sorted({case.group for case in cases})
    known = {case.prompt: case.target for case in cases if case.group in groups[::2]}
    engine = Engine(ScriptedModel(lambda prompt: known.get(prompt, "No.")[:190]))
    records = list(run(name, cases, engine, Predictors(engine.backend.encode, None)))
    summary = checked(options_of(name)["summary"](records))
    prefix = "oracle: " if name == "needle" else ""
    (point,) = summary[f"{prefix}by_delta"]
    assert (point["value"], 0 < point["pass_rate"] < 1) == (0, True)
    predictors = summary[f"{prefix}predictors"]
    assert predictors["influence"].startswith("not measured: ")
    assert 0 <= predictors["inverse_length"]["auc"] <= 1
    if name != "needle":
        assert len(summary["unsteered_by_style"]) == 3
    if name == "french":
        assert summary["win_rates"].startswith("not measured: ")
        assert summary["judged_win_rates"].startswith("not measured: no judge ")
    if name == "needle":
        assert summary["oracle: influence_by_depth_and_length"]["mean"] == []  # no model: no map


def test_where_a_judge_is_given_it_compares_with_the_unsteered_answer():
    french = "Le boulanger vit à Lyon, et il vend son pain à tous les voisins du quartier."
    plain, steered = (
        replace(case, metadata={**case.metadata, "delta": delta})
        for case, delta in zip(build("french", "smoke")[:1] * 2, (0, 2), strict=True)
    )
    asked = []

    class Better:
        def prefers(self, *answers):
            asked.append(answers)
            return 1.0

    answers = [SimpleNamespace(text=t, finish_reason="stop") for t in (french, "It is English.")]
    for case, other, expected in [
        (steered, answers[0], {"judged": 1.0}),
        (steered, answers[1], {}),
        (steered, None, {}),
        (plain, None, {}),
    ]:
        scores = {}
        function_of("french")(
            case, lambda *_, **__: {}, answers[0], other, scores.__setitem__, None, Better()
        )
        assert scores == expected
    assert asked == [(steered.prompt, french, french)]
