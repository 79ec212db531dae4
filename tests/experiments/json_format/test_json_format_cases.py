"""JSON answers: records that their text states, and answers that are read without mercy."""

import json
import random
import time

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.data.prose import is_held_out
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.json_format import documents, scoring
from pytest_llmprobe.experiments.json_format.reading import MAX_DEPTH, PROBLEMS, extract
from pytest_llmprobe.experiments.json_format.scoring import (
    jaccard,
    keys,
    schema_errors,
    schema_keys,
    score,
)

many = settings(deadline=None, max_examples=200)
seeds = st.integers(0, 2**32)
kinds = st.sampled_from(["book", "person", "event"])
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=5)

BOOK = documents.schema("book")
BOOK_KEYS = {"title", "genre", "characters", "author", "summary", "date", "scenery"}


def values(part):
    if isinstance(part, dict):
        for inner in part.values():
            yield from values(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from values(inner)
    else:
        yield part


# Records


@many
@given(seeds, kinds, st.booleans())
def test_every_value_is_a_literal_piece_of_the_facts_in_their_order(seed, kind, held_out):
    made = documents.record(random.Random(seed), held_out=held_out, kind=kind)
    facts, place = " ".join(made.facts), 0
    assert made.kind == kind
    for key, value in made.truth.items():
        if key == "summary":
            assert f"In short, {value}." in made.facts
        for literal in values(value):
            said = {True: "open", False: "closed"}[literal] if key == "open" else str(literal)
            place = facts.index(said, place) + len(said)
    assert all(fact.endswith(".") and fact.count(".") == 1 for fact in made.facts)


@many
@given(seeds, kinds, st.booleans())
def test_the_reference_answer_passes_with_every_score_at_its_best(seed, kind, held_out):
    made = documents.record(random.Random(seed), held_out=held_out, kind=kind)
    schema = documents.schema(kind)
    answer = documents.answer(made)
    assert "\n" not in answer
    assert list(json.loads(answer)) == list(schema["properties"]) == schema["required"]
    scored = score(answer, schema, made.truth)
    assert scored.passed
    assert scored.explain().startswith("correct:")
    assert (scored.level, scored.problem, scored.schema_errors) == ("strict", "", ())
    assert scored.jaccard == scored.jaccard_deep == scored.field_accuracy == 1


@many
@given(seeds, kinds, st.booleans())
def test_invented_names_are_of_the_right_part_and_differ(seed, kind, held_out):
    truth = documents.record(random.Random(seed), held_out=held_out, kind=kind).truth
    names = {
        "book": lambda: [truth["author"].split()[1], *(who["name"] for who in truth["characters"])],
        "person": lambda: [truth["name"].split()[1]],
        "event": lambda: [truth["title"].split()[0]],
    }[kind]()
    assert [is_held_out(name) for name in names] == [held_out] * len(names)
    assert len(set(names)) == len(names)


@many
@given(seeds)
def test_a_book_has_the_seven_keys_in_their_order(seed):
    truth = documents.record(random.Random(seed), kind="book").truth
    assert list(truth) == [
        "title",
        "genre",
        "characters",
        "author",
        "summary",
        "date",
        "scenery",
    ]
    assert 1510 <= truth["date"] <= 1699
    assert 1 <= len(truth["characters"]) <= 2
    assert all(list(who) == ["name", "description"] for who in truth["characters"])
    assert truth["summary"].split()[0] in {who["name"] for who in truth["characters"]}


@many
@given(seeds, kinds, st.integers(0, 40))
def test_the_text_holds_each_fact_once_in_order_among_the_prose(seed, kind, n):
    rng = random.Random(seed)
    made = documents.record(rng, kind=kind)
    text = documents.text(made, rng, n)
    places = [text.index(fact) for fact in made.facts]
    assert places == sorted(places)
    assert [text.count(fact) for fact in made.facts] == [1] * len(made.facts)
    assert text.count(".") == n + len(made.facts)
    assert "  " not in text
    assert text == text.strip()


def test_facts_are_spread_over_the_text_and_not_all_at_one_place():
    rng = random.Random(0)
    starts, ends = [], []
    for _ in range(200):
        made = documents.record(rng, kind="book")
        text = documents.text(made, rng, 30)
        starts.append(text.index(made.facts[0]) / len(text))
        ends.append(text.index(made.facts[-1]) / len(text))
    assert sum(starts) / 200 < 0.25
    assert sum(ends) / 200 > 0.7


def test_the_same_seed_gives_the_same_record_and_all_kinds_are_drawn():
    drawn = [documents.record(random.Random(seed)) for seed in range(60)]
    assert drawn == [documents.record(random.Random(seed)) for seed in range(60)]
    assert {made.kind for made in drawn} == {"book", "person", "event"}
    assert len({documents.answer(made) for made in drawn}) == 60


def test_an_unknown_kind_is_refused():
    with pytest.raises(CasesError, match="film"):
        documents.record(random.Random(0), kind="film")
    with pytest.raises(CasesError, match="film"):
        documents.schema("film")


@many
@given(seeds, kinds, st.data())
def test_a_schema_takes_no_answer_with_a_key_missing_added_or_of_another_type(seed, kind, data):
    truth = dict(documents.record(random.Random(seed), kind=kind).truth)
    schema = documents.schema(kind)
    key = data.draw(st.sampled_from(sorted(truth)))
    damage = data.draw(st.sampled_from(["missing", "added", "null", "text", "list"]))
    if damage == "missing":
        del truth[key]
    elif damage == "added":
        truth[key + "s"] = truth[key]
    else:
        truth[key] = {
            "null": None,
            "text": 1.5 if isinstance(truth[key], str) else "1",
            "list": [1],
        }[damage]
    assert schema_errors(truth, schema)


def test_the_schemas_are_valid_and_the_one_that_ships_is_the_books():
    for kind in ("book", "person", "event"):
        jsonschema.Draft202012Validator.check_schema(documents.schema(kind))
    assert json.loads(documents.BOOK_SCHEMA) == BOOK
    assert schema_keys(BOOK) == BOOK_KEYS
    assert schema_keys(BOOK, deep=True) == BOOK_KEYS | {
        "characters.name",
        "characters.description",
    }


# Prompts


def test_the_instruction_and_its_two_baselines():
    named = ["title", "date", "scenery"]
    assert documents.instruction(named) == (
        'Return one JSON object with the keys "title", "date" and "scenery".'
    )
    assert documents.instruction(named, "capitals") == (
        'RETURN ONE JSON OBJECT WITH THE KEYS "title", "date" AND "scenery".'
    )
    assert documents.instruction(named, "important") == (
        'IMPORTANT: Return one JSON object with the keys "title", "date" and "scenery".'
    )
    assert documents.instruction(["a"]).endswith('the keys "a".')
    assert documents.instruction(["a", "b"]).endswith('the keys "a" and "b".')
    assert documents.instruction(['a"{keys}é']).endswith('the keys "a\\"{keys}é".')


def test_what_makes_no_instruction_and_no_prompt_is_refused():
    with pytest.raises(CasesError, match="at least one key"):
        documents.instruction([])
    with pytest.raises(CasesError, match="loud"):
        documents.instruction(["a"], "loud")
    with pytest.raises(CasesError, match="middle"):
        documents.prompt("text", "instruction", "middle")


def test_instructions_at_the_end_share_the_text_before_them():
    text, styles = "{text} {0}", ("plain", "capitals", "important")
    asked = [documents.instruction(["a"], style) for style in styles]
    assert all(documents.prompt(text, one).startswith(f"{text}\n\n{one}\n") for one in asked)
    assert documents.prompt(text, asked[0], "head") == f"{asked[0]}\n\n{text}\n\nJSON:"


# Extraction


@many
@given(json_objects, st.booleans(), st.sampled_from([None, 2]), st.text(" \t\n\r", max_size=3))
def test_an_object_that_is_the_whole_answer_is_strict(value, ascii_only, indent, space):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    found = extract(space + text + space)
    assert (found.level, found.value, found.problem) == ("strict", value, "")


plain_text = st.text(max_size=30).filter(lambda text: "{" not in text and "`" not in text)


@many
@given(json_objects, plain_text, plain_text)
def test_an_object_with_other_text_around_it_is_embedded(value, before, after):
    found = extract(f"{before}:{json.dumps(value)}{after}.")
    assert (found.level, found.value) == ("embedded", value)


@many
@given(json_objects, json_objects, plain_text, st.sampled_from(["json", "", "JSON5", " json"]))
def test_a_fenced_block_wins_over_what_is_outside(value, other, between, info):
    block = f"```{info}\n{json.dumps(value, indent=2)}\n```"
    for answer in (
        block,
        f"{json.dumps(other)}\n{block}",
        f"{block}\n{between}{json.dumps(other)}",
        f"{between}\n  {block}",
        block.removesuffix("\n```"),
        f"```\nno object\n```\n{block}",
    ):
        found = extract(answer)
        assert (found.level, found.value) == ("embedded", value)


@many
@given(json_objects, json_objects, plain_text)
def test_several_objects_are_none(value, other, between):
    one, two = json.dumps(value), json.dumps(other)
    for answer in (f"{one}{between}{two}", f"[{one}, {two}]", f"```\n{one}\n```\n```\n{two}\n```"):
        assert extract(answer).problem == "several_objects"


@many
@given(json_objects.filter(bool), st.data())
def test_an_object_that_is_cut_off_is_none_whatever_it_holds(value, data):
    text = json.dumps(value)
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    assert extract(cut) == extract("") == extract("x")
    assert extract(f"{cut}\n{text}").value in (value, None)


@many
@given(st.text(), st.text(st.sampled_from('{}[]",:`\\\n a1'), max_size=60))
def test_no_answer_breaks_the_reading(text, marks):
    for answer in (text, marks, text + marks, f'{{"a": {marks}}}', f'{{"{marks}": 1}}'):
        found = extract(answer)
        assert (found.value is None) == (found.level == "none") == bool(found.problem)
        assert score(answer, BOOK).explain()


NONE = {
    "": "no_object",
    "null": "no_object",
    '["a", 1]': "no_object",
    "'a': 1": "no_object",
    "{a: 1}": "no_object",
    "{'a': 1}": "no_object",
    '{"a": 1,}': "no_object",
    '{"a": "b\nc"}': "no_object",
    '{"a": 1 // one\n}': "no_object",
    '{"a": True}': "no_object",
    '{"a": {"b": 1}, "c": ': "no_object",
    '{"a": [{"b": 1}, {"b": 2}': "no_object",
    '{"a": 1}{"a": 1}': "several_objects",
    '{} and {"a": 1}': "several_objects",
    '{"a": 1, "a": 1}': "duplicate_keys",
    '{"a": 1, "\\u0061": 2}': "duplicate_keys",
    '{"x": [{"y": {"a": 1, "a": 2}}]}': "duplicate_keys",
    'So: {"a": 1, "b": 2, "a": 3}.': "duplicate_keys",
    '{"a": NaN}': "not_json",
    '{"a": -Infinity, "b": {}}': "not_json",
    '{"a": 1e999}': "not_json",
    f'{{"a": {"1" * 5000}}}': "not_json",
    '{"a": "\\ud800"}': "not_json",
    '{"a": "\ud800"}': "not_json",
    '{"\\udfff": 1}': "not_json",
    '{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1): "too_deep",
    '{"a":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}": "too_deep",
    '{"a":' * 5000 + "1" + "}" * 5000: "too_deep",
    '{"a":' * 50_000: "too_deep",
}


@pytest.mark.parametrize(
    ("answer", "word"), NONE.items(), ids=[f"{n}-{text[:30]!r}" for n, text in enumerate(NONE)]
)
def test_an_answer_without_one_good_object_says_why(answer, word):
    found = extract(answer)
    assert (found.level, found.value) == ("none", None)
    assert found.problem.partition(":")[0] == word
    assert word in PROBLEMS
    assert len(found.problem) < 200


# name: (answer, level, the word if there is no object, why)
ADVERSARIAL = {
    "the question echoed": (
        'Return one JSON object with the keys "a" and "b".\nJSON: {"a": 1}',
        "embedded",
        "",
        "keys in quotes are no object",
    ),
    "the question echoed in braces": (
        'keys {"a", "b"}: {"a": 1}',
        "embedded",
        "",
        "what is in braces and no object is text",
    ),
    "the schema echoed": (
        '{"type": "object"}\n{"a": 1}',
        "none",
        "several_objects",
        "nobody can tell which one is the answer",
    ),
    "the form echoed": (
        '{"a": ..., "b": ...}\n{"a": 1}',
        "embedded",
        "",
        "a form with dots is no object",
    ),
    "two candidates": ('{"a": 1} or {"a": 2}', "none", "several_objects", "it did not decide"),
    "a correction": (
        'First {"a": 1}. No: {"a": 2}',
        "none",
        "several_objects",
        "a program would read both",
    ),
    "the same one twice": ('{"a": 1}\n{"a": 1}', "none", "several_objects", "one is expected"),
    "candidates in two fences": (
        '```json\n{"a": 1}\n```\nor\n```json\n{"a": 2}\n```',
        "none",
        "several_objects",
        "both fences hold one",
    ),
    "JSON lines": ('{"a": 1}\n{"b": 2}\n', "none", "several_objects", "two objects"),
    "a list of one": ('[{"a": 1}]', "embedded", "", "a list is text around its object"),
    "upper-case literals": ('{"a": TRUE}', "none", "no_object", "JSON says true"),
    "Python's literals": ('{"a": None, "b": True}', "none", "no_object", "JSON says null"),
    "upper-case keys": ('{"A": 1}', "strict", "", "case is the schema's matter"),
    "keys that differ in case": ('{"a": 1, "A": 2}', "strict", "", "they are different keys"),
    "an escaped key twice": ('{"a": 1, "\\u0061": 2}', "none", "duplicate_keys", "both are a"),
    "the same key deep and high": ('{"a": {"a": 1}}', "strict", "", "in different objects"),
    "cut off in a string": ('{"a": 1, "b": "x', "none", "no_object", "it does not end"),
    "cut off before its end": ('{"a": {"b": 1}', "none", "no_object", "the inner one is a part"),
    "cut off in its fence": ('```json\n{"a": 1, "b"', "none", "no_object", "it does not end"),
    "a fence cut off": ('```json\n{"a": 1}', "embedded", "", "its object is whole"),
    "braces in strings": ('{"a": "}{", "b": "{\\"c\\": 1}"}', "strict", "", "they are text"),
    "an object in a string": ('"{\\"a\\": 1}"', "none", "no_object", "it is a string"),
    "an open brace before": ('{ {"a": 1}', "embedded", "", "a brace alone is text"),
    "braces in pairs": ('{{{"a": 1}}}', "embedded", "", "so are three"),
    "a fence in a fence": (
        '```json\n```json\n{"a": 1}\n```\n```',
        "embedded",
        "",
        "it is the only object, wherever the fences end",
    ),
    "a long fence": ('````json\n{"a": 1}\n````', "embedded", "", "four marks are a fence too"),
    "a fence of tildes": ('~~~\n{"a": 1}\n~~~', "embedded", "", "text around the object"),
    "a fence in a string": ('{"a": "\\n```\\n{}"}', "strict", "", "a string is a string"),
    "an example, then a fence": (
        'Like {"x": 0}:\n```\n{"a": 1}\n```',
        "embedded",
        "",
        "a fenced block wins",
    ),
    "a comment within": ('{"a": 1 // one\n}', "none", "no_object", "JSON has no comments"),
    "a block comment within": ('{/* one */ "a": 1}', "none", "no_object", "JSON has no comments"),
    "a comment before": ('// here it is\n{"a": 1}', "embedded", "", "it is text before"),
    "a comment after": ('{"a": 1} # done', "embedded", "", "it is text after"),
    "a trailing comma": ('{"a": 1,}', "none", "no_object", "JSON has none"),
    "a trailing comma in a list": ('{"a": [1, 2,]}', "none", "no_object", "JSON has none"),
    "a trailing comma deep": ('{"a": {"b": 1,}, "c": 2}', "none", "no_object", "the whole is bad"),
    "a comma after": ('{"a": 1},', "embedded", "", "it is text after"),
    "NaN": ('{"a": NaN}', "none", "not_json", "Python reads it, JSON does not"),
    "NaN deep": ('{"a": [{"b": NaN}]}', "none", "not_json", "at any depth"),
    "NaN in a string": ('{"a": "NaN"}', "strict", "", "a string is a string"),
    "lower-case nan": ('{"a": nan}', "none", "no_object", "nobody reads it"),
    "infinity": ('{"a": -Infinity}', "none", "not_json", "Python reads it, JSON does not"),
    "a megabyte of open braces": ("{" * 1_000_000, "none", "no_object", "no object begins"),
    "an object after a megabyte of them": (
        "{" * 1_000_000 + '{"a": 1}',
        "embedded",
        "",
        "they are text",
    ),
    "a megabyte of open objects": ('{"a":' * 200_000, "none", "too_deep", "nobody reads so deep"),
    "a megabyte of open lists": ('{"a":' + "[" * 1_000_000, "none", "too_deep", "so for lists"),
}


@pytest.mark.parametrize(("answer", "level", "word", "why"), ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_an_adversarial_answer_gets_its_verdict(answer, level, word, why):
    found = extract(answer)
    assert (found.level, found.problem.partition(":")[0]) == (level, word), why


FOUND = {
    '{"a": "} {"}': "strict",
    '{"a": "\\"}{"}': "strict",
    '{"a": "```\\n{}"}': "strict",
    "\n{}\n": "strict",
    '{"a":' * (MAX_DEPTH - 1) + '{"b": 1}' + "}" * (MAX_DEPTH - 1): "strict",
    '{"a": "\\ud83d\\ude00"}': "strict",
    '\ufeff{"a": 1}': "embedded",
    '\xa0{"a": 1}': "embedded",
    '[{"a": 1}]': "embedded",
    '{{"a": 1}}': "embedded",
    'A set {x | x > 0} and {"a": 1}': "embedded",
    'The "quoted" 5" {"a": 1} it\'s': "embedded",
    'Start {"a": 1,\nno, again: {"a": 1, "b": 2}': "embedded",
    'This is {"a" broken}, this {"a": 1} is not': "embedded",
    '```json\n{"a": "`x`"}``` done': "embedded",
}


@pytest.mark.parametrize(
    ("answer", "level"), FOUND.items(), ids=[f"{n}-{text[:30]!r}" for n, text in enumerate(FOUND)]
)
def test_an_object_is_found_in_spite_of_what_looks_like_another(answer, level):
    assert extract(answer).level == level


HUGE = [
    *(
        "{",
        '{"',
        '{"a":',
        '{"a":[',
        '{"{"',
        '{"a":1,',
        "{ ",
        "```\n{",
        "{}",
        "[",
        '{"a":"\\"',
        "```\n",
    ),
    *('{"a":[1,{"b":"', '{"a":NaN,"b":{"', '{"a":1}{"a":', '{"a\n":', '{"a":[{},', '{"\\u00'),
]


@pytest.mark.parametrize("unit", HUGE)
@pytest.mark.parametrize("end", ["", '"', "}" * 1000])
def test_the_work_on_a_huge_answer_is_bounded(unit, end):
    answer = unit * (300_000 // len(unit)) + end
    start = time.process_time()
    extract(answer)
    assert time.process_time() - start < 2


@settings(deadline=None, max_examples=25)
@given(st.text(st.sampled_from('{}[]",:`\\\n a1u'), min_size=1, max_size=12), st.integers(0, 3))
def test_the_work_on_a_megabyte_of_anything_is_bounded(unit, cut):
    answer = unit * (1_000_000 // len(unit)) + unit[:cut]
    start = time.process_time()
    extract(answer)
    assert time.process_time() - start < 5


def test_a_huge_flat_object_is_read():
    value = {f"key{n}": [n, {"x": str(n)}] for n in range(20_000)}
    assert extract(json.dumps(value)).value == value
    twice = json.dumps(value)[:-1] + ', "key7": 0}'
    assert extract(twice).problem == "duplicate_keys: key7"


# Schemas


def test_true_is_no_integer_and_an_error_stays_short():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    assert schema_errors({"n": 1}, schema) == []
    (error,) = schema_errors({"n": True}, schema)
    assert error.startswith("$.n: True is not of type 'integer'")
    assert len(schema_errors({"n": "x" * 10_000}, schema)[0]) < 400


def test_a_schema_that_cannot_be_used_is_refused_and_nothing_is_fetched():
    with pytest.raises(CasesError, match="no JSON Schema"):
        schema_errors({}, {"type": "thing"})
    with pytest.raises(CasesError, match=r"example\.org"):
        schema_errors({}, {"$ref": "https://example.org/schema.json"})
    with pytest.raises(CasesError, match="not in it"):
        schema_errors({}, {"$ref": "#/$defs/missing"})
    with pytest.raises(CasesError, match="without end"):
        schema_errors({}, {"$ref": "#"})


TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
        },
    },
    "allOf": [{"$ref": "#/$defs/node"}],
    "properties": {"a.b": {"oneOf": [True, {"properties": {"c/d": {}}}]}},
}


def test_the_keys_of_a_schema_follow_references_once_around():
    assert schema_keys(TREE) == {"name", "children", "a.b"}
    assert schema_keys(TREE, deep=True) == {"name", "children", "a\\.b", "a\\.b.c/d"}
    assert schema_keys({"$ref": "#"}) == schema_keys({"$ref": "#/x/y"}) == frozenset()
    assert schema_keys({"type": "array", "items": {"properties": {"a": {}}}}) == frozenset()


def test_a_recursive_schema_can_judge_an_answer_as_deep_as_is_read():
    value = {"name": "leaf"}
    for _ in range((MAX_DEPTH - 1) // 2):
        value = {"name": "branch", "children": [value]}
    answer = json.dumps(value)
    assert extract(answer).value == value
    assert score(answer, TREE).passed


# Jaccard and fields

key_sets = st.frozensets(st.sampled_from("abcdef"))


@many
@given(key_sets, key_sets)
def test_the_jaccard_index_is_symmetric_and_1_only_for_equal_sets(one, two):
    index = jaccard(one, two)
    assert index == jaccard(two, one)
    assert 0 <= index <= 1
    assert (index == 1) == (one == two)
    assert (index == 0) == (not one & two and bool(one | two))


def test_the_jaccard_index_counts_keys_top_level_and_deep():
    answer = json.dumps({"title": 1, "extra": 2, "characters": [{"name": 1}, {"nick": 2}]})
    scored = score(answer, BOOK)
    assert scored.jaccard == pytest.approx(2 / 8)
    assert scored.jaccard_deep == pytest.approx(3 / 11)
    assert scored.fields == {}
    assert scored.field_accuracy is None


@many
@given(json_objects)
def test_deep_keys_are_those_of_a_walk_with_list_items_collapsed(value):
    def walk(part, path):
        if isinstance(part, list):
            for item in part:
                yield from walk(item, path)
        elif isinstance(part, dict):
            for key, inner in part.items():
                yield (*path, key)
                yield from walk(inner, (*path, key))

    paths = set(walk(value, ()))
    assert keys(value) == set(value)
    found = keys(value, deep=True)
    assert {path for path in found if "\\" not in path} <= {".".join(path) for path in paths}
    if all(not set(key) & {".", "\\"} for path in paths for key in path):
        assert found == {".".join(path) for path in paths}


def test_a_dotted_key_does_not_pass_for_a_path():
    assert keys({"": {"a": 1}}, deep=True) == {"", ".a"}
    assert keys({"a.b": 1}, deep=True).isdisjoint(keys({"a": {"b": 1}}, deep=True))
    assert keys({"a\\.b": 1}, deep=True).isdisjoint(keys({"a.b": 1}, deep=True))
    assert keys([{"a": 1}]) == keys(None, deep=True) == keys("ab") == frozenset()


def test_fields_match_exactly_but_for_white_space():
    truth = {"s": "a b", "n": 1, "t": True, "z": 0, "l": [{"x": "c d"}], "none": None}
    same = {"l": [{"x": " c\n d "}], "s": "\ta  b", "n": 1, "t": True, "z": 0, "none": None, "e": 1}
    assert scoring.field_accuracy(same, truth) == dict.fromkeys(truth, True)
    other = {"s": "A b", "n": True, "t": 1, "z": False, "l": [{"x": "cd"}]}
    assert scoring.field_accuracy(other, truth) == dict.fromkeys(truth, False)
    assert scoring.field_accuracy({"n": "1", "z": 0.0}, truth)["n"] is False
    assert scoring.field_accuracy({"z": 0.0}, truth)["z"] is False
    assert scoring.field_accuracy(None, truth) == dict.fromkeys(truth, False)


@many
@given(seeds, kinds, st.data())
def test_one_wrong_field_costs_one_field(seed, kind, data):
    made = documents.record(random.Random(seed), kind=kind)
    wrong = dict(made.truth)
    key = data.draw(st.sampled_from(sorted(wrong)))
    wrong[key] = {"no": "such"}
    scored = score(json.dumps(wrong), documents.schema(kind), made.truth)
    assert [name for name, right in scored.fields.items() if not right] == [key]
    assert scored.field_accuracy == pytest.approx(1 - 1 / len(wrong))
    assert (scored.jaccard, scored.level, scored.valid, scored.passed) == (
        1,
        "strict",
        False,
        False,
    )


@pytest.mark.parametrize(
    ("answer", "level", "valid", "passed", "word"),
    [
        ('{"a": 1}', "strict", True, True, "correct"),
        ('Sure: {"a": 1}', "embedded", True, True, "correct"),
        ('```json\n{"a": 1}\n```', "embedded", True, True, "correct"),
        ('[{"a": 1}]', "embedded", True, False, "in_list"),
        ('{"a": "1"}', "strict", False, False, "invalid"),
        ('Sure: {"b": 1}', "embedded", False, False, "invalid"),
        ('{"a": 1, "a": 1}', "none", False, False, "duplicate_keys"),
        ("Sorry.", "none", False, False, "no_object"),
        ('{"a": NaN}', "none", False, False, "not_json"),
    ],
)
def test_only_an_answer_with_one_valid_object_passes(answer, level, valid, passed, word):
    schema = {"properties": {"a": {"type": "integer"}}, "required": ["a"]}
    scored = score(answer, schema, {"a": 1})
    assert (scored.level, scored.valid, scored.passed) == (level, valid, passed)
    assert scored.explain().partition(":")[0] == word
    if level == "none":
        assert scored.jaccard == scored.jaccard_deep == scored.field_accuracy == 0
