"""JSON generation: read a text, answer with one JSON object that obeys a schema.  Chance 0.

After the GUIDE paper, arXiv 2409.19001, experiment 3, on made-up records, whose truth is known.
Example: The age is an integer, every other value a string.  "... The age of the person is 41. ..."
Return one JSON object with the keys "name", "age" and "city".
-> {"name": "Ida Velmora", "age": 41, "city": "Rome"}

    pytest evals/json_format --model=mistral -n 2
"""

import json
from functools import partial
from itertools import product

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments.json_format import documents, scoring
from pytest_llmprobe.statistics.tables import curve, heat_map, score_curve

pytestmark = pytest.mark.json_format

PROMPTS = {  # by the place of the instruction; a JSON Schema would confuse the reference model
    "end": "{types}\n\n{text}\n\n{instruction}\nJSON:",
    "head": "{instruction}\n\n{types}\n\n{text}\n\nJSON:",
}
INSTRUCTION = "Return one JSON object with the keys {keys}."

KINDS = ("book", "person", "event")
SIZES = {"smoke": (400,), "ci": (400, 1_200, 2_400), "full": (2_000, 8_000, 24_000)}  # characters
STYLES = {  # capitals and important: the paper's baselines
    "smoke": ("plain",),
    "ci": ("plain", "capitals", "important"),
    "full": ("plain", "capitals", "important"),
}
TRIALS = {"smoke": 1, "ci": 1, "full": 5}
AROUND = 96  # tokens for a fence and what may be said before and after it
EXAMPLE = 200  # characters of its text


def json_objects(suite):
    trials = range(suite.trials or TRIALS[suite.profile])
    for kind, size, trial in product(KINDS, SIZES[suite.profile], trials):
        rng = suite.random("json_format", kind, size, trial)
        record = documents.record(rng, kind=kind)
        text = documents.text(record, rng, documents.sentences_in(record, size))
        for where, style in product(PROMPTS, STYLES[suite.profile]):
            case = Case(
                id=f"{kind}-{size}-characters-{where}-{trial}/{style}",  # end: they share the text
                prompt=question(record, text, where, style),
                target=documents.answer(record),
                chance=0.0,
                metadata={
                    "task": "json_format",
                    "size": size,
                    "trial": trial,
                    "kind": kind,
                    "instruction": where,
                    "style": style,
                },
                max_new_tokens=suite.room(json.dumps(record.truth, indent=4), margin=AROUND),
            )
            yield suite.with_examples(case, partial(example, kind, where), end="\n\n")


def question(record, text, where, style):
    types = documents.types(documents.schema(record.kind))
    instruction = documents.instruction(list(record.truth), style, INSTRUCTION)
    return PROMPTS[where].format(types=types, text=text, instruction=instruction)


def example(kind, where, rng):
    record = documents.record(rng, kind=kind)
    text = documents.text(record, rng, documents.sentences_in(record, EXAMPLE))
    return question(record, text, where, "plain"), documents.answer(record)


def summarise(records):
    keys = sorted({name for record in records for name in record.scores if name.startswith("key ")})
    return {
        "heat_map": heat_map(records, rows="style", columns="size"),
        "by_place_of_the_instruction": curve(records, "instruction"),
        "key_accuracy": {key[4:]: score_curve(records, "kind", key) for key in keys},
    }


@pytest.mark.probe(cases=json_objects, summary=summarise)
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
