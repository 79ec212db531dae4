"""Attention steering, 2 of 3: JSON, with the instruction before the text.  Chance 0.

After the GUIDE paper, arXiv 2409.19001, experiment 3, on made-up records: Delta on the instruction
that asks for one JSON object, without the types that stand after it.  A long text lets it be
forgotten.  The summary is that of test_steered_french.py.

    pytest evals/steering -k json --model=mistral -n 2
"""

import json
from itertools import product

import pytest

from pytest_llmprobe import Case, Span
from pytest_llmprobe.experiments.json_format import documents, scoring
from pytest_llmprobe.experiments.steering.summary import steering_summary

pytestmark = [pytest.mark.steering, pytest.mark.whitebox]

PROMPT = "{instruction}\n\n{types}\n\n{text}\n\nJSON:"
INSTRUCTION = "Return one JSON object with the keys {keys}."

SWEEP = (-4, 0, 1, 2, 3, 6)  # paper: 1, 2, 3
DELTAS = {"smoke": (-4, 0, 2), "ci": (-4, 0, 2), "full": SWEEP}
KINDS = {"smoke": ("person",), "ci": ("person", "event"), "full": ("book", "person", "event")}
# Characters of the text.
SIZES = {"smoke": (600,), "ci": (1_000, 1_600), "full": (2_000, 8_000, 16_000, 24_000)}
STYLED = {**SIZES, "ci": (1_600,)}  # with baselines
TRIALS = {"smoke": 2, "ci": 5, "full": 10}
BASELINES = ("capitals", "important")  # unsteered
AROUND = 96  # tokens of an answer for a fence and what may be said before and after it
LAST = 5  # tokens of the prompt at whose end the predictors are taken


def steered_objects(suite):
    trials = range(suite.trials or TRIALS[suite.profile])
    for kind, size, trial in product(KINDS[suite.profile], SIZES[suite.profile], trials):
        rng = suite.random("steered_json", kind, size, trial)
        record = documents.record(rng, kind=kind)
        text = documents.text(record, rng, documents.sentences_in(record, size))
        types = documents.types(documents.schema(kind))
        baselines = BASELINES if size in STYLED[suite.profile] else ()
        for style in ("plain", *baselines):
            instruction = documents.instruction(list(record.truth), style, INSTRUCTION)
            yield Case(
                id=f"{kind}-{size}-characters-{trial}/{style}",
                prompt=PROMPT.format(types=types, instruction=instruction, text=text),
                target=documents.answer(record),
                spans=[Span(instruction, occurrence=0)] if style == "plain" else [],
                chance=0.0,
                metadata={
                    "task": "steered_json",
                    "size": size,
                    "trial": trial,
                    "kind": kind,
                    "style": style,
                },
                max_new_tokens=suite.room(json.dumps(record.truth, indent=4), margin=AROUND),
            )


@pytest.mark.probe(cases=steered_objects, summary=steering_summary, delta=DELTAS)
def test_steered_json(case, predictors, completion, score):
    if case.metadata.get("delta") == 0:
        for name, value in predictors(case.prompt, case.spans[0], last=LAST).items():
            score(name, value)
    schema = documents.schema(case.metadata["kind"])
    is_cut = completion.finish_reason == "length"
    answer = scoring.score(completion.text, schema, json.loads(case.target), cut_off=is_cut)
    score("jaccard", answer.jaccard)
    score("field_accuracy", answer.field_accuracy)
    assert answer.passed, answer.explain()
