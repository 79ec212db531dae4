"""Attention steering, 2 of 3: JSON, with the instruction before the text.  Chance 0.

After the GUIDE paper, arXiv 2409.19001, experiment 3, on made-up records: Delta on the instruction
that asks for one JSON object (in the full profile without the schema that follows it, as in the
paper's code).  A long text lets it be forgotten.  The summary is that of test_steered_french.py.

    pytest evals/steering -k json --model=mistral -n 2
"""

import json
from itertools import product

import pytest

from pytest_llmprobe import Case, Span
from pytest_llmprobe.experiments.json_format import documents, scoring
from pytest_llmprobe.experiments.steering.summary import steering_summary

pytestmark = [pytest.mark.steering, pytest.mark.whitebox]

PROMPT = "{instruction}\n\n{text}\n\nJSON:"
KEYS = "Return one JSON object with the keys {keys}."
SCHEMA = "Return one JSON object that is valid under this JSON Schema: {schema}"
FORMS = {"smoke": "keys", "ci": "keys", "full": "schema"}

SWEEP = (-4, 0, 1, 2, 3, 6)  # paper: 1, 2, 3
DELTAS = {"smoke": (-4, 0, 2), "ci": SWEEP, "full": SWEEP}
KINDS = {"smoke": ("person",), "ci": ("person", "event"), "full": ("book", "person", "event")}
# Characters of the text.
SIZES = {"smoke": (600,), "ci": (1_000, 1_600), "full": (2_000, 8_000, 16_000, 24_000)}
TRIALS = {"smoke": 2, "ci": 5, "full": 10}
ANSWER = {"smoke": 128, "ci": 512, "full": 512}  # tokens; a person takes 30, a book more
BASELINES = ("capitals", "important")  # unsteered
LAST = 5  # tokens of the prompt at whose end the predictors are taken


def steered_objects(suite):
    form, trials = FORMS[suite.profile], range(suite.trials or TRIALS[suite.profile])
    for kind, size, trial in product(KINDS[suite.profile], SIZES[suite.profile], trials):
        rng = suite.random("steered_json", kind, size, trial)
        record = documents.record(rng, kind=kind)
        text = documents.text(record, rng, documents.sentences_in(record, size))
        for style in ("plain", *BASELINES):
            if form == "keys":
                instruction = documents.instruction(list(record.truth), style, KEYS)
                steered = instruction
            else:
                schema = documents.schema(kind)
                instruction = documents.schema_instruction(schema, style, SCHEMA)
                steered = SCHEMA.partition("{schema}")[0]
            yield Case(
                id=f"{kind}-{size}-characters-{trial}/{style}",
                prompt=PROMPT.format(instruction=instruction, text=text),
                target=documents.answer(record),
                spans=[Span(steered, occurrence=0)] if style == "plain" else [],
                chance=0.0,
                metadata={
                    "task": "steered_json",
                    "size": size,
                    "trial": trial,
                    "kind": kind,
                    "style": style,
                    "form": form,
                },
            )


@pytest.mark.probe(
    cases=steered_objects, summary=steering_summary, delta=DELTAS, max_new_tokens=ANSWER
)
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
