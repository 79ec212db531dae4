r"""JSON generation on texts of one's own: experiment 3 of the GUIDE paper, arXiv 2409.19001.

The paper has 300 historical books and a schema of seven keys, which ships; --llmprobe-dataset
json_schema=FILE takes another. The truth is unknown, so format and schema are judged. Chance 0.
Not part of a run unless texts are named:

    pytest evals/json_format/test_json_texts.py --model=mistral -n 2 \
        --llmprobe-dataset json_format=books/ [--llmprobe-dataset json_schema=schema.json]
"""

from itertools import product

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.haystack import text_needle
from pytest_llmprobe.experiments.json_format import documents, scoring

pytestmark = pytest.mark.json_format

PROMPTS = {  # by the place of the instruction
    "end": "{text}\n\n{instruction}\nJSON:",
    "head": "{instruction}\n\n{text}\n\nJSON:",
}
INSTRUCTION = "Return one JSON object that is valid under this JSON Schema: {schema}"
STYLES = ("plain", "capitals", "important")  # the last two: the paper's baselines

SIZE = {"smoke": 400, "ci": 2_400, "full": 24_000}  # characters; a longer text is cut
TEXTS = {"smoke": 2, "ci": 20, "full": 300}


def schema_of(suite):
    given = suite.dataset("json_schema")
    return scoring.checked_schema(given.document()) if given else documents.schema("book")


@pytest.fixture(scope="module")
def schema(suite):
    return schema_of(suite)


def json_texts(suite):
    texts, given = suite.dataset("json_format"), suite.dataset("json_schema")
    if texts is None and given is None:
        pytest.skip("no texts: give --llmprobe-dataset json_format=SOURCE")
    if texts is None:
        raise CasesError(f"{given} needs texts: give --llmprobe-dataset json_format=SOURCE too")
    schema = schema_of(suite)
    size = SIZE[suite.profile]
    sample = texts.sample(texts=TEXTS[suite.profile], longest=size + 2)
    for number, text in enumerate(sample.texts):
        for where, style in product(PROMPTS, STYLES):
            instruction = documents.schema_instruction(schema, style, INSTRUCTION)
            yield Case(
                id=f"text-{number}-{where}/{style}",
                prompt=PROMPTS[where].format(
                    text=text_needle.cut(text, size), instruction=instruction
                ),
                chance=0.0,
                metadata={
                    "task": "json_texts",
                    "size": size,
                    "text": number,
                    "instruction": where,
                    "style": style,
                    "schema": given.given if given else "book",
                    "source": sample.origin,
                },
            )


@pytest.mark.probe(cases=json_texts, max_new_tokens=1000)  # as in the paper
def test_json_texts(case, completion, score, schema):
    is_cut = completion.finish_reason == "length"
    answer = scoring.score(completion.text, schema, cut_off=is_cut)
    score("strict", answer.level == "strict")  # the whole answer is one object
    score("embedded", answer.level == "embedded")  # there is one inside other text
    score("schema_valid", answer.valid)
    score("jaccard", answer.jaccard)
    score("jaccard_deep", answer.jaccard_deep)
    assert answer.passed, answer.explain()
