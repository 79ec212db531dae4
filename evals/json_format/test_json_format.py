"""JSON generation: read a text, answer with one JSON object that obeys a schema.  Chance 0.

After the GUIDE paper, arXiv 2409.19001, experiment 3, on made-up records, whose truth is known.
Example: "... The age of the person is 41. ..."  Return one JSON object with the keys "name", "age"
and "city". -> {"name": "Ida Velmora", "age": 41, "city": "Rome"}

    pytest evals/json_format --model=mistral -n 2
"""

import json
from itertools import product

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments.json_format import documents, scoring
from pytest_llmprobe.statistics.tables import curve, heat_map, score_curve

pytestmark = pytest.mark.json_format

PROMPTS = {  # by the place of the instruction
    "end": "{text}\n\n{instruction}\nJSON:",
    "head": "{instruction}\n\n{text}\n\nJSON:",
}
KEYS = "Return one JSON object with the keys {keys}."
SCHEMA = "Return one JSON object that is valid under this JSON Schema: {schema}"
# The reference model was trained on the keys alone. From them nobody can guess what the characters
# of a book look like, so that other models miss all books but in the full profile.
FORMS = {"smoke": "keys", "ci": "keys", "full": "schema"}

KINDS = ("book", "person", "event")
SIZES = {"smoke": (400,), "ci": (400, 1_200, 2_400), "full": (2_000, 8_000, 24_000)}  # characters
STYLES = {  # capitals and important: the paper's baselines
    "smoke": ("plain",),
    "ci": ("plain", "capitals", "important"),
    "full": ("plain", "capitals", "important"),
}
TRIALS = {"smoke": 1, "ci": 1, "full": 5}


def json_objects(suite):
    form, trials = FORMS[suite.profile], range(suite.trials or TRIALS[suite.profile])
    for kind, size, trial in product(KINDS, SIZES[suite.profile], trials):
        rng = suite.random("json_format", kind, size, trial)
        record = documents.record(rng, kind=kind)
        text = documents.text(record, rng, documents.sentences_in(record, size))
        for where, style in product(PROMPTS, STYLES[suite.profile]):
            if form == "keys":
                instruction = documents.instruction(list(record.truth), style, KEYS)
            else:
                schema = documents.schema(kind)
                instruction = documents.schema_instruction(schema, style, SCHEMA)
            yield Case(
                id=f"{kind}-{size}-characters-{where}-{trial}/{style}",  # end: they share the text
                prompt=PROMPTS[where].format(text=text, instruction=instruction),
                target=documents.answer(record),
                chance=0.0,
                metadata={
                    "task": "json_format",
                    "size": size,
                    "trial": trial,
                    "kind": kind,
                    "instruction": where,
                    "style": style,
                    "form": form,
                },
            )


def summarise(records):
    keys = sorted({name for record in records for name in record.scores if name.startswith("key ")})
    return {
        "heat_map": heat_map(records, rows="style", columns="size"),
        "by_place_of_the_instruction": curve(records, "instruction"),
        "key_accuracy": {key[4:]: score_curve(records, "kind", key) for key in keys},
    }


@pytest.mark.probe(cases=json_objects, summary=summarise, max_new_tokens=512)
def test_json_format(case, completion, score):
    schema = documents.schema(case.metadata["kind"])
    is_cut = completion.finish_reason == "length"
    answer = scoring.score(completion.text, schema, json.loads(case.target), cut_off=is_cut)
    score("strict", answer.level == "strict")  # the whole answer is one object
    score("embedded", answer.level == "embedded")  # there is one inside other text
    score("schema_valid", answer.valid)
    score("jaccard", answer.jaccard)
    score("jaccard_deep", answer.jaccard_deep)
    score("field_accuracy", answer.field_accuracy)
    for key, right in answer.fields.items():
        score(f"key {key}", right)
    assert answer.passed, answer.explain()
