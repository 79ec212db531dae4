"""Rows from every source, their ids, and prompts that are all made before anything runs."""

import json

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.search import read_rows
from pytest_llmprobe.search.rows import cluster_of, make_prompts

ROWS = [{"q": "one", "a": 1}, {"q": "two", "a": 2}]


def test_every_source_gives_the_same_rows(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    expected = read_rows(ROWS)
    assert [{key: row[key] for key in ("q", "a")} for row in expected] == ROWS
    assert read_rows(file) == read_rows(str(file)) == expected
    assert read_rows(iter(ROWS)) == expected


def test_a_dataset_is_a_sequence_of_rows():
    datasets = pytest.importorskip("datasets")
    assert read_rows(datasets.Dataset.from_list(ROWS)) == read_rows(ROWS)


def test_an_id_is_the_rows_own_or_depends_on_what_it_holds_only():
    first, second = read_rows(ROWS)
    assert read_rows(ROWS[::-1]) == [second, first]
    assert read_rows([first, second]) == [first, second]
    assert read_rows([{"id": 7, "q": "x"}])[0]["id"] == "7"
    a, b, c = (row["id"] for row in read_rows([*ROWS[:1] * 2, ROWS[1]]))
    assert a == first["id"] != b != c == second["id"]


def test_a_case_is_a_row_of_its_group():
    case = Case("haystack/3", "where?", "here", {"depth": 50})
    (row,) = read_rows([case])
    expected = {"id": "haystack/3", "prompt": "where?", "target": "here"}
    assert row == expected | {"depth": 50, "group": "haystack"}
    assert cluster_of(row) == "group haystack"
    assert cluster_of(read_rows(ROWS)[0]) == f"row {read_rows(ROWS)[0]['id']}"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "no row"),
        ([{"id": 1}, {"id": "1"}], "2 rows have the id '1'"),
        ([7], "row 1 is int"),
        ("missing.jsonl", r"missing\.jsonl cannot be read"),
    ],
)
def test_data_that_cannot_be_used_say_why(data, words):
    with pytest.raises(CasesError, match=words):
        read_rows(data)


def test_a_template_fills_in_columns_and_nothing_else():
    rows = read_rows([{"q": "{a} 100%", "a": 1.5}])
    assert make_prompts(rows, "{q} {{x}}: {a:.2f}") == ["{a} 100% {x}: 1.50"]
    for template, words in (
        ("{b}", "needs the column 'b'; it has a, q"),
        ("{q.__class__}", "names 'q.__class__'"),
        ("{a[0]}", "names"),
        ("{}", "names ''"),
        ("{", "cannot be read"),
        ("{q:d}", "its prompt cannot be made: ValueError"),
    ):
        with pytest.raises(CasesError, match=words):
            make_prompts(rows, template)


def test_a_function_sees_its_columns_only_and_may_give_messages():
    rows = read_rows(ROWS)
    seen = []

    def messages(row):
        seen.append(dict(row))
        return [{"role": "user", "content": row["q"]}]

    prompts = make_prompts(rows, messages, ["q"])
    assert seen == [{"q": "one"}, {"q": "two"}]
    assert prompts[1] == [{"role": "user", "content": "two"}]
    with pytest.raises(CasesError, match=f"row {rows[0]['id']}: its prompt cannot be made: Key"):
        make_prompts(rows, lambda row: row["a"], ["q"])
    with pytest.raises(CasesError, match="the prompt is empty"):
        make_prompts(rows, lambda row: "")


def test_rows_without_a_group_are_clusters_of_their_own():
    rows = read_rows([{"id": "5", "group": None}, {"id": "b", "group": ""}, {"id": "c"}])
    rows += read_rows([{"id": "d", "group": 5}, {"id": "e", "group": "5"}])
    clusters = [cluster_of(row) for row in rows]
    assert clusters[3] == clusters[4]
    assert len(set(clusters)) == 4
