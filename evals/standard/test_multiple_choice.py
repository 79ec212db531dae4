"""The likeliest of some choices is the right one.  Chance 1 / choices.

Each choice is scored as what follows the question, as lm-evaluation-harness does, and with its
prompts.  Example: "Question: What do bees make?\nAnswer:" -> " honey", not " milk".

    pytest evals/standard --model=mistral --llmprobe-dataset mmlu=mmlu.jsonl --llmprobe-few-shot 5 \
        --llmprobe-dataset hellaswag=Rowan/hellaswag:validation --llmprobe-limit 200

A data set has the layout of MMLU, HellaSwag, ARC, PIQA or WinoGrande, or rows of one's own as
{"prompt": ..., "choices": [...], "target": text or number}; docs/standard-tasks.md lists the
fields.  The tests named after a task are there if their data are given.  A case of HellaSwag and
ARC passes by the log-likelihood per character (acc_norm), of the others by that of the whole
(acc), as the numbers that are quoted for them; all metrics are in its scores.
"""

import pytest

from pytest_llmprobe.experiments.standard import own_rows
from pytest_llmprobe.experiments.standard.few_shot import choice_cases
from pytest_llmprobe.experiments.standard.layouts import questions
from pytest_llmprobe.statistics.tables import curve

pytestmark = pytest.mark.standard

OWN = {"smoke": 6, "ci": 30, "full": 30}


def cases(name, suite):
    data = suite.dataset(name)
    rows = list(own_rows.choice_rows())[: OWN[suite.profile]] if data is None else data.rows()
    return choice_cases(suite, list(questions(rows)), name, data or "our own rows")


def multiple_choice(suite):
    return cases("multiple_choice", suite)


def mmlu(suite):
    return cases("mmlu", suite)


def hellaswag(suite):
    return cases("hellaswag", suite)


def arc(suite):
    return cases("arc", suite)


def piqa(suite):
    return cases("piqa", suite)


def winogrande(suite):
    return cases("winogrande", suite)


def by_subject(records):
    return {"by_subject": curve(records, "subject")} if records[0].params.get("subject") else {}


@pytest.mark.probe(cases=multiple_choice, summary=by_subject)
def test_multiple_choice(case, choice):
    assert choice.acc, choice.problem


@pytest.mark.probe(cases=mmlu, dataset="mmlu", summary=by_subject)
def test_mmlu(case, choice):
    assert choice.acc, choice.problem


@pytest.mark.probe(cases=hellaswag, dataset="hellaswag")
def test_hellaswag(case, choice):
    assert choice.acc_norm, choice.problem_norm


@pytest.mark.probe(cases=arc, dataset="arc")
def test_arc(case, choice):
    assert choice.acc_norm, choice.problem_norm


@pytest.mark.probe(cases=piqa, dataset="piqa")
def test_piqa(case, choice):
    assert choice.acc, choice.problem


@pytest.mark.probe(cases=winogrande, dataset="winogrande")
def test_winogrande(case, choice):
    assert choice.acc, choice.problem
