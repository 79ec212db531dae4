"""The published needle-threading data set: its rows become cases that the solver answers."""

import json
import random
import re
from pathlib import Path
from runpy import run_path

import pytest

from pytest_llmprobe.case import check_cases
from pytest_llmprobe.data.sources import read_datasets
from pytest_llmprobe.engine.engine import Engine
from pytest_llmprobe.engine.scripted import ScriptedModel
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.generation import GenerateConfig, Request
from pytest_llmprobe.suite import Suite

EVAL = run_path(str(Path(__file__).parents[3] / "evals" / "needle" / "test_published.py"))

# The row that the data set's README shows, with its haystack and key filled in.
README_ROW = {
    "id": 5,
    "haystack": "",
    "keys": "",
    "values": "",
    "question": "Extract the value corresponding to the specified key in the JSON object. "
    'Key: "{}"\n Corresponding value: ',
    "context_length": 2000,
    "num_kv_pairs": 25,
    "repeat_number": 0,
    "needle_depth": "50",
    "num_needles": 1,
    "needle_placement": "depthwise",
    "conditional_character": "N/A",
    "thread_length": 1,
    "thread_direction": "N/A",
    "num_threads": 0,
}


def row(pairs, keys, values, **columns):
    question = README_ROW["question"].format('", "'.join(keys))
    return README_ROW | {
        "haystack": needle.render(pairs),
        "keys": str(list(keys)),
        "values": str(list(values)) if len(values) > 1 else values[0],
        "question": question,
        **columns,
    }


def rows():
    """A row of each task, as the card and the README let one expect them."""
    rng = random.Random(2)
    pairs = needle.random_pairs(25, rng)
    yield "single_needle", row(pairs, [pairs[12].key], [pairs[12].value])
    asked = [pairs[place] for place in (3, 20, 7)]
    yield (
        "multiple_needles",
        row(
            pairs,
            [key for key, _ in asked],
            [value for _, value in asked],
            id=6,
            num_needles=3,
            needle_placement="random",
            needle_depth="N/A",
        ),
    )
    yield (
        "multiple_needles",
        row(pairs, asked[0][:1], asked[0][1:], id=7, needle_placement="random"),
    )
    for special in "*&+":
        marked = list(pairs)
        for place in (4, 9):
            key, value = marked[place]
            marked[place] = needle.Pair(key[:2] + special + key[3:], value)
        yield (
            "conditional_needles",
            row(
                marked,
                [],
                [marked[9].value, marked[4].value],
                id=ord(special),
                question=f"Extract the values of all keys that contain '{special}'. Values: ",
                needle_placement="clustered",
                conditional_character=special,
            ),
        )
    thread = needle.thread(25, 4, "backward", rng)
    columns = {"thread_length": 4, "thread_direction": "backward", "num_threads": 1}
    yield "threading", row(thread.pairs, [thread.start], [thread.target], id=8, **columns)
    whole = needle.follow(thread.pairs, thread.start)
    yield "threading", row(thread.pairs, [thread.start], whole, id=9, **columns)
    threads = needle.multi_threads(25, 3, 4, "forward", rng)
    yield (
        "multi_threading",
        row(
            threads[0].pairs,
            [one.start for one in threads],
            [one.target for one in threads],
            id=10,
            thread_length=3,
            thread_direction="forward",
            num_threads=4,
        ),
    )


NAMES, ROWS = zip(*rows(), strict=True)


def cases_of(*rows, **options):
    located = ((f"data.jsonl line {n}", row) for n, row in enumerate(rows, 1))
    return list(needle.published_cases(located, **options))


def suite(tmp_path, profile="ci", trials=None, rows=ROWS):
    path = tmp_path / "published.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return Suite(profile, 0, trials, read_datasets([f"needle_threading={path}"], tmp_path))


def test_every_task_is_told_from_its_columns():
    cases = check_cases(cases_of(*ROWS), "published")
    assert [case.metadata["task"] for case in cases] == list(NAMES)
    assert {case.metadata["size"] for case in cases} == {25}


def test_the_prompt_is_the_haystack_and_the_question_as_in_the_readme():
    (case,) = cases_of(ROWS[0])
    assert case.prompt == f"{ROWS[0]['haystack']}\n{ROWS[0]['question']}".rstrip()
    assert case.target == ROWS[0]["values"]
    assert case.chance == 1 / 25
    assert case.metadata == {
        "task": "single_needle",
        "size": 25,
        "trial": 0,
        "needles": 1,
        "depth": 50,
        "placement": "depthwise",
        "hops": 1,
    }


def test_questions_about_one_haystack_share_a_group():
    cases = cases_of(*ROWS[:3], ROWS[6])
    groups = [case.group.partition("-")[2] for case in cases]
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_values_may_list_whole_threads_in_any_notation():
    texts = [json.dumps(ROWS[7]["values"]), ROWS[7]["values"].upper(), ROWS[7]["values"].split(",")]
    for values in texts:
        (case,) = cases_of(ROWS[7] | {"values": values})
        assert case.target == ROWS[6]["values"]


def test_columns_may_be_missing_or_hold_nothing():
    needed = {key: ROWS[0][key] for key in ("id", "haystack", "values", "question")}
    for nothing in ({}, dict.fromkeys(set(ROWS[0]) - set(needed), "N/A")):
        (case,) = cases_of(needed | nothing)
        assert case.metadata == {"task": "single_needle", "size": 25, "trial": 0, "needles": 1}


@pytest.mark.parametrize("name", ["id", "haystack", "values", "question"])
def test_a_row_without_a_column_that_is_needed_is_named(name):
    short = {key: value for key, value in ROWS[1].items() if key != name}
    with pytest.raises(CasesError, match=rf"^data\.jsonl line 2 has no '{name}'; it has "):
        cases_of(ROWS[0], short)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"values": ROWS[1]["values"]}, "its values are .*, but its haystack and question say"),
        ({"values": "none"}, "its values are no UUIDs"),
        ({"haystack": "{}"}, "holds no JSON object"),
        ({"haystack": "x"}, "holds no JSON object"),
        ({"question": "What?"}, "asks for 0 keys"),
    ],
)
def test_a_row_whose_answer_the_solver_does_not_find_is_an_error_and_no_wrong_score(columns, words):
    with pytest.raises(CasesError, match=rf"^data\.jsonl line 1: .*{words}"):
        cases_of(ROWS[0] | columns)


def test_the_order_of_several_values_counts_but_for_conditional_needles():
    backwards = str(ROWS[1]["values"].split(", ")[::-1])
    with pytest.raises(CasesError, match="its values are"):
        cases_of(ROWS[1] | {"values": backwards})
    assert cases_of(ROWS[3])


def test_a_haystack_may_be_an_object():
    whole = ROWS[0] | {"haystack": json.loads(ROWS[0]["haystack"])}
    assert cases_of(whole) == cases_of(ROWS[0])
    with pytest.raises(CasesError, match="none of the 1 rows has a haystack of at most 1999"):
        cases_of(whole, longest=1999)


def test_a_file_of_the_published_archive_is_read_as_it_comes(tmp_path):
    expected = [case.id for case in EVAL["published"](suite(tmp_path))]
    path = tmp_path / "Single_Needle.json"
    for rows in (ROWS, {name: [row[name] for row in ROWS] for name in ROWS[0]}):
        path.write_text(json.dumps(rows))
        data = read_datasets([f"needle_threading={path}"], tmp_path)
        assert [case.id for case in EVAL["published"](Suite("ci", 0, None, data))] == expected


def test_long_haystacks_and_later_repeats_are_left_out():
    later = ROWS[0] | {"id": 1, "repeat_number": 3}
    assert len(cases_of(ROWS[0], later)) == 2
    assert [case.id for case in cases_of(ROWS[0], later, trials=3)] == [cases_of(ROWS[0])[0].id]
    assert len(cases_of(ROWS[0], longest=2000)) == 1
    with pytest.raises(CasesError, match="none of the 2 rows has a haystack of at most 1999"):
        cases_of(ROWS[0], later, longest=1999)


# The eval


def judge(cases, answer):
    (mark,) = (mark for mark in EVAL["test_published"].pytestmark if mark.name == "probe")
    options = {key: value for key, value in mark.kwargs.items() if key != "cases"}
    engine = Engine(ScriptedModel(answer))
    config = GenerateConfig.of(**options)
    requests = [Request.of_case(case, config) for case in cases]
    for case, done in zip(cases, engine.generate(requests), strict=True):
        scores = {}
        try:
            EVAL["test_published"](case, done, scores.__setitem__)
        except AssertionError as miss:
            yield case, str(miss).partition(":")[0], scores
        else:
            yield case, None, scores


def test_without_data_the_eval_is_skipped_and_says_what_to_give():
    suite = Suite()
    with pytest.raises(pytest.skip.Exception, match="--llmprobe-dataset needle_threading=SOURCE"):
        EVAL["published"](suite)
    assert suite.asked == {"needle_threading"}


def test_a_perfect_model_passes_every_case(tmp_path):
    cases = list(EVAL["published"](suite(tmp_path)))
    right = {case.prompt: case.target.upper() for case in cases}
    for _, miss, scores in judge(cases, right.__getitem__):
        assert miss is None
        assert set(scores.values()) == {1}


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda _: "I cannot find it.", "no_uuid"),
        (lambda _: "01234567-89ab-4cde-8f01-23456789abcd", "invented_uuid"),
        (
            lambda prompt: needle.read_haystack(prompt)[0].value,
            "other_value_in_haystack|stopped_2_hops_early",
        ),
    ],
)
def test_a_wrong_model_passes_nothing_and_its_failure_has_a_name(tmp_path, answer, word):
    cases = list(EVAL["published"](suite(tmp_path)))
    assert len(cases) == len(ROWS)
    assert all(re.fullmatch(word, miss) for _, miss, _ in judge(cases, answer))


def test_the_profile_chooses_sizes_and_repeats(tmp_path):
    later = [row | {"id": 100 + n, "repeat_number": 1} for n, row in enumerate(ROWS)]
    both = [*ROWS, *later]
    counts = {
        (profile, trials): len(list(EVAL["published"](suite(tmp_path, profile, trials, both))))
        for profile, trials in [("smoke", None), ("ci", None), ("full", None), ("ci", 2)]
    }
    n = len(ROWS)
    assert counts == {
        ("smoke", None): n,
        ("ci", None): n,
        ("full", None): 2 * n,
        ("ci", 2): 2 * n,
    }
