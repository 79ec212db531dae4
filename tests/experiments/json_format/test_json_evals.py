"""The evaluations of JSON: their cases, and what models get for them."""

import json
import re
from pathlib import Path
from runpy import run_path

import pytest

from pytest_llmprobe.case import RawPrompt, check_cases
from pytest_llmprobe.data.sources import read_datasets
from pytest_llmprobe.engine.engine import Engine
from pytest_llmprobe.engine.scripted import ScriptedModel
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.json_format import documents
from pytest_llmprobe.generation import GenerateConfig
from pytest_llmprobe.suite import Suite

FOLDER = Path(__file__).parents[3] / "evals" / "json_format"
RECORDS = run_path(str(FOLDER / "test_json_format.py"))
BOOK = documents.schema("book")


def judge(names, name, cases, answer, *fixtures):
    """For each case the miss, or None, and the scores."""
    (mark,) = (mark for mark in names[f"test_{name}"].pytestmark if mark.name == "probe")
    options = {key: value for key, value in mark.kwargs.items() if key not in ("cases", "summary")}
    options["max_new_tokens"] = 4_000  # a scripted model's tokens are characters
    completions = Engine(ScriptedModel(answer)).generate(
        [case.prompt for case in cases], GenerateConfig.of(**options)
    )
    for case, completion in zip(cases, completions, strict=True):
        scores = {}
        try:
            names[f"test_{name}"](case, completion, scores.__setitem__, *fixtures)
        except AssertionError as miss:
            yield str(miss).partition("\n")[0], scores
        else:
            yield None, scores


# Records


def build(*options, **more):
    return list(RECORDS["json_objects"](Suite(*options, **more)))


@pytest.mark.parametrize("profile", ["smoke", "ci", "full"])
def test_every_case_states_its_truth_and_has_its_size(profile):
    cases = check_cases(build(profile, trials=1), "json_format")
    for case in cases:
        truth, size = json.loads(case.target), case.metadata["size"]
        schema = documents.schema(case.metadata["kind"])
        assert list(truth) == list(schema["properties"])
        texts = [part for part in case.prompt.split("\n\n") if "JSON" not in part.upper()]
        assert 0.8 * size < len(max(texts, key=len)) < 1.15 * size
        assert str(next(iter(truth.values()))) in case.prompt


def test_but_for_the_types_prompts_are_those_of_the_reference_models_training():
    for case in build():
        keys, style = list(json.loads(case.target)), case.metadata["style"]
        instruction = documents.instruction(keys, style, RECORDS["INSTRUCTION"])
        assert instruction == documents.instruction(keys, style)
        types = documents.types(documents.schema(case.metadata["kind"]))
        rest = case.prompt.replace(f"{types}\n\n", "")
        text = max(rest.split("\n\n"), key=len)
        assert rest == documents.prompt(text, instruction, case.metadata["instruction"])


def stated_schema(prompt):
    """The schema that a prompt states in words, as a reader understands it."""
    (keys,) = re.findall("with the keys (.+)\\.$", prompt, re.MULTILINE | re.IGNORECASE)
    (types,) = re.findall("^.+, every other value a string\\.$", prompt, re.MULTILINE)
    string = {"type": "string"}

    def strict(properties):
        more = {"required": list(properties), "additionalProperties": False}
        return {"type": "object", "properties": properties, **more}

    stated = dict.fromkeys(re.findall('"(.+?)"', keys), string)
    for part in types.lower().split(", ")[:-1]:
        what, said = re.fullmatch("(.+?) ((?:is|are) .+)", part).groups()
        of = re.match("are a list of objects with the strings (.+) and (.+)", said)
        item = of and strict(dict.fromkeys(of.groups(), string))
        kind = {"is an integer": "integer", "are integers": "integer", "is a boolean": "boolean"}
        for key in what.replace("the ", "").split(" and "):
            assert key in stated
            stated[key] = {"type": "array", "items": item} if of else {"type": kind[said]}
    return strict(stated)


@pytest.mark.parametrize("profile", ["smoke", "ci", "full"])
def test_every_prompt_of_every_profile_states_all_types_of_the_schema(profile):
    for case in build(profile, trials=1):
        schema = dict(documents.schema(case.metadata["kind"]))
        schema.pop("$schema")
        assert stated_schema(case.prompt) == schema


@pytest.mark.parametrize("counter", ["reference", "smollm2", None], indirect=True)
def test_an_answer_has_room_for_a_fence_a_sentence_and_indentation(counter):
    count = counter.count if counter else lambda text: len(text.text.encode()) / 2
    for case in build("ci", counter=counter):
        answer = json.dumps(json.loads(case.target), indent=4)
        said = (
            f"Here is the JSON object that you asked for, with all its keys:\n```json\n{answer}\n"
            "```\nI took every value from the text. Let me know if you need anything else!"
        )
        assert count(RawPrompt(said)) < case.max_new_tokens


def test_the_baselines_are_cases_of_their_own_with_the_same_text():
    groups = {}
    for case in build():
        groups.setdefault(case.group, {})[case.metadata["style"]] = case
    for cases in groups.values():
        assert set(cases) == {"plain", "capitals", "important"}
        assert len({case.target for case in cases.values()}) == 1
        plain, important = cases["plain"].prompt, cases["important"].prompt
        assert important.replace("IMPORTANT: ", "") == plain


def test_the_cases_depend_on_the_seed_and_on_nothing_else():
    assert build(seed=5) == build(seed=5)
    assert [case.id for case in build(seed=5)] == [case.id for case in build(seed=6)]
    assert not {case.prompt for case in build(seed=5)} & {case.prompt for case in build(seed=6)}
    few, more = ({case.id: case for case in build(trials=n)} for n in (1, 3))
    assert len(more) == 3 * len(few)
    assert all(more[case_id] == case for case_id, case in few.items())


@pytest.mark.parametrize("profile", ["smoke", "ci", "full"])
def test_a_perfect_model_passes_every_case_with_every_score(profile):
    cases = build(profile, trials=1)
    right = {case.prompt: case.target for case in cases}
    best = {"strict", "schema_valid", "jaccard", "jaccard_deep", "field_accuracy"}
    judged = judge(RECORDS, "json_format", cases, right.__getitem__)
    for case, (miss, scores) in zip(cases, judged, strict=True):
        keys = {f"key {key}" for key in json.loads(case.target)}
        assert miss is None
        assert scores == dict.fromkeys(best | keys, 1) | {"embedded": 0}


def pretty(truth):
    return json.dumps(truth, indent=4)


WRONG = {  # what is made of the truth: the word, and scores that it must get
    "a list of one": (lambda t: f"[{pretty(t)}]", "in_list", {"strict": 0, "field_accuracy": 1}),
    "a comma too many": (lambda t: pretty(t)[:-1] + ",}", "no_object", {"strict": 0}),
    "curly quotes": (
        lambda t: pretty(t).replace('"', "\u201d"),
        "no_object",
        {"strict": 0, "embedded": 0},
    ),
    "another language's fence": (
        lambda t: f"```python\nanswer = {pretty(t)}\nprint(answer)\n```",
        "no_object",
        {"schema_valid": 0},
    ),
    "the schema alone": (lambda t: json.dumps(BOOK), "invalid", {"strict": 1}),
    "upper-case keys": (
        lambda t: pretty({key.upper(): value for key, value in t.items()}),
        "invalid",
        {"strict": 1, "schema_valid": 0, "jaccard": 0, "field_accuracy": 0},
    ),
    "a key too many": (lambda t: pretty(t | {"x": 1}), "invalid", {"field_accuracy": 1}),
    "values as text": (
        lambda t: pretty({key: str(value) for key, value in t.items()}),
        "invalid",
        {"jaccard": 1, "strict": 1, "schema_valid": 0},
    ),
    "cut short": (lambda t: pretty(t)[:-1], "no_object", {"strict": 0, "jaccard": 0}),
    "another one": (lambda t: f"{{}} {json.dumps(t)}", "several_objects", {"field_accuracy": 0}),
    "a key twice": (
        lambda t: "{" + f'"{next(iter(t))}": 1, ' + json.dumps(t)[1:],
        "duplicate_keys",
        {"schema_valid": 0},
    ),
    "words": (lambda t: "I cannot do that.", "no_object", {"strict": 0, "embedded": 0}),
    "the sentences": (lambda t: f"The title is {t}.", "no_object", {"strict": 0}),
}


EMBEDDED = {
    "a fence": lambda t: f"```json\n{pretty(t)}\n```",
    "a fence of tildes": lambda t: f"~~~\n{pretty(t)}\n~~~",
    "a quoted fence": lambda t: f"> ```json\n{json.dumps(t)}\n> ```",
    "a preamble": lambda t: f"Sure! {pretty(t)}",
    "a sentence around it": lambda t: f"The object is {json.dumps(t)}. Is there anything else?",
    "a command's fence first": (
        lambda t: f"```bash\necho '{{\"a\": 1}}'\n```\nSo: {json.dumps(t)}"
    ),
    "a program's fence after it": (
        lambda t: f"{pretty(t)}\n\n```python\njson.loads('{{\"a\": 1}}')\n```"
    ),
    "two fences": (lambda t: f"```sh\ncurl -d '{{}}' host\n```\n\n```json\n{json.dumps(t)}\n```"),
    "a fence of javascript": lambda t: f"```javascript\n{pretty(t)}\n```",
    "the schema first": lambda t: f"Schema: {json.dumps(schema_of(t))}\n{json.dumps(t)}",
}


def schema_of(truth):
    kinds = [documents.schema(kind) for kind in ("book", "person", "event")]
    return next(schema for schema in kinds if list(schema["properties"]) == list(truth))


@pytest.mark.parametrize("change", EMBEDDED.values(), ids=EMBEDDED)
def test_a_valid_object_passes_with_text_around_it_and_is_not_strict(change):
    cases = build()
    truths = {case.prompt: json.loads(case.target) for case in cases}
    for miss, scores in judge(RECORDS, "json_format", cases, lambda p: change(truths[p])):
        assert miss is None
        assert scores | {"strict": 0, "embedded": 1, "field_accuracy": 1} == scores


def test_an_object_that_the_limit_cut_is_cut_off():
    cases = [case for case in build() if case.metadata["kind"] == "book"]
    truths = {case.prompt: json.loads(case.target) for case in cases}
    talk = "Let me think. " * 280
    for miss, _ in judge(RECORDS, "json_format", cases, lambda p: talk + pretty(truths[p])):
        assert miss.startswith("cut_off:")


@pytest.mark.parametrize(("change", "word", "expected"), WRONG.values(), ids=WRONG)
def test_a_wrong_model_passes_nothing_and_its_failure_has_a_name(change, word, expected):
    cases = build()
    truths = {case.prompt: json.loads(case.target) for case in cases}
    for miss, scores in judge(RECORDS, "json_format", cases, lambda p: change(truths[p])):
        assert miss is not None
        assert miss.partition(":")[0] == word
        assert scores | expected == scores


def test_a_right_form_with_wrong_values_passes_and_scores_say_so():
    cases = [case for case in build() if case.metadata["kind"] == "person"]
    answer = json.dumps({"name": "Nobody", "age": 1, "city": "Nowhere", "job": "none"})
    for miss, scores in judge(RECORDS, "json_format", cases, lambda _: answer):
        assert miss is None
        assert scores["field_accuracy"] == 0
        assert scores["jaccard"] == 1


# Texts of one's own


@pytest.fixture
def texts():
    """The eval, loaded anew: it keeps the schema of the run."""
    return run_path(str(FOLDER / "test_json_texts.py"))


def suite_on(folder, *options, profile="ci"):
    (folder / "texts.jsonl").write_text(
        "\n".join(json.dumps({"text": f"Text {n} {{0}}. " * (40 * n + 1)}) for n in range(30))
    )
    return Suite(profile, datasets=read_datasets(options, folder))


def test_without_texts_the_eval_is_skipped_and_says_what_to_give(texts):
    suite = Suite()
    with pytest.raises(pytest.skip.Exception, match="--llmprobe-dataset json_format=SOURCE"):
        list(texts["json_texts"](suite))
    assert suite.asked == {"json_format", "json_schema"}


def test_a_schema_without_texts_is_an_error(texts, tmp_path):
    (tmp_path / "s.json").write_text("{}")
    with pytest.raises(CasesError, match=r"json_schema=s\.json needs texts: give --llmprobe-data"):
        list(texts["json_texts"](suite_on(tmp_path, "json_schema=s.json")))


@pytest.mark.parametrize(("profile", "n", "size"), [("smoke", 2, 400), ("ci", 20, 2_400)])
def test_each_text_is_cut_and_asked_for_with_the_book_schema(texts, tmp_path, profile, n, size):
    suite = suite_on(tmp_path, "json_format=texts.jsonl", profile=profile)
    cases = check_cases(texts["json_texts"](suite), "json_texts")
    assert len(cases) == n * 2 * 3
    for case in cases:
        assert json.dumps(BOOK) in case.prompt
        text = next(part for part in case.prompt.split("\n\n") if part.startswith("Text"))
        assert len(text) <= size
        assert text.rstrip().endswith(".")
        assert case.metadata["source"].startswith(f"texts.jsonl ({n} texts, sha256 ")
        assert case.metadata["schema"] == "book"
        assert case.target is None


BOOK_ANSWER = json.dumps(
    dict.fromkeys(BOOK["properties"], "x")
    | {"characters": [{"name": "x", "description": "y"}], "date": 1600}
)


def test_an_answer_is_judged_by_the_schema_alone(texts, tmp_path):
    cases = list(texts["json_texts"](suite_on(tmp_path, "json_format=texts.jsonl")))
    best = {"strict", "schema_valid", "jaccard", "jaccard_deep"}
    for miss, scores in judge(texts, "json_texts", cases, lambda _: BOOK_ANSWER, BOOK):
        assert miss is None
        assert scores == dict.fromkeys(best, 1) | {"embedded": 0}
    for miss, _ in judge(texts, "json_texts", cases, lambda _: '{"a": 1}', BOOK):
        assert miss.startswith("invalid: ")


def test_a_schema_of_ones_own_takes_the_place_of_the_books(texts, tmp_path):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    (tmp_path / "s.json").write_text(json.dumps(schema))
    suite = suite_on(tmp_path, "json_format=texts.jsonl", "json_schema=s.json")
    cases = list(texts["json_texts"](suite))
    assert all(json.dumps(schema) in case.prompt for case in cases)
    assert {case.metadata["schema"] for case in cases} == {"s.json"}
    used = texts["schema_of"](suite)
    assert used == schema
    right = judge(texts, "json_texts", cases, lambda _: '{"a": 1}', used)
    assert {miss for miss, _ in right} == {None}
    for miss, _ in judge(texts, "json_texts", cases, lambda _: BOOK_ANSWER, used):
        assert miss.startswith("invalid: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "no JSON Schema: it is a list"),
        ('{"type": "thing"}', "this is no JSON Schema"),
        ('{"$ref": "https://example.org/s.json"}', "not in it"),
        ("{", r"s\.json is no JSON"),
    ],
)
def test_a_schema_that_cannot_be_used_is_found_before_the_run(texts, tmp_path, content, words):
    (tmp_path / "s.json").write_text(content)
    suite = suite_on(tmp_path, "json_format=texts.jsonl", "json_schema=s.json")
    with pytest.raises(CasesError, match=words):
        list(texts["json_texts"](suite))
