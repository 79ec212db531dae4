"""Data that the user names: what is read, in what order, and what is said if it cannot be."""

import importlib.util
import json
import os
import sys
import types
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.data import json_array, rows, sources
from pytest_llmprobe.data.sources import read_datasets
from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.suite import Suite


@pytest.fixture
def source(tmp_path):
    """Write a file and give the data set that names it."""

    def source(given, content=None):
        if content is not None:
            path = tmp_path / given.partition("#")[0]
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        (dataset,) = read_datasets([f"haystack={given}"], tmp_path).values()
        return dataset

    return source


@pytest.fixture
def packages(monkeypatch):
    """Stand-ins for the packages of the extra, whose reader is the function that is given."""

    def packages(load_dataset=None, parquet_file=None):
        datasets, pyarrow = types.ModuleType("datasets"), types.ModuleType("pyarrow")
        parquet = types.ModuleType("pyarrow.parquet")
        datasets.load_dataset, parquet.ParquetFile = load_dataset, parquet_file
        pyarrow.parquet = parquet
        for module in (datasets, pyarrow, parquet):
            module.__spec__ = importlib.util.spec_from_loader(module.__name__, None)
            monkeypatch.setitem(sys.modules, module.__name__, module)

    return packages


@pytest.fixture
def without_packages(monkeypatch):
    for module in (sources, rows):
        monkeypatch.setattr(module, "find_spec", lambda name: None)


# Files and folders


def test_documents_go_by_their_file_their_own_id_or_their_line(source):
    source("texts/b.txt", "two")
    source("texts/a.txt", "one")
    source("texts/empty.txt", " ")
    assert list(source("texts").documents()) == [("a.txt", "one"), ("b.txt", "two")]
    rows = [{"id": "x", "text": "one"}, {"id": 7, "text": "two"}, {"text": "three"}]
    found = source("a.jsonl", "\n".join(map(json.dumps, rows))).documents()
    assert list(found) == [("x", "one"), ("7", "two"), ("line 3", "three")]
    assert [
        len(name)
        for name, _ in source("b.jsonl", json.dumps({"id": "x" * 999, "text": "a"})).documents()
    ] == [500]


def test_a_folder_is_its_text_files_in_the_order_of_their_names(source):
    for name in ("b.txt", "a.txt", "10.txt", "2.txt"):
        source(f"texts/{name}", f"Text {name}.")
    (source("texts").path / "c.md").write_text("not this")
    names = ["10.txt", "2.txt", "a.txt", "b.txt"]
    assert list(source("texts").texts()) == [f"Text {name}." for name in names]


def test_a_text_file_is_one_text_without_its_byte_order_mark(source):
    assert list(source("a.txt", "\ufeffEin Text.\r\nZwei.".encode()).texts()) == [
        "Ein Text.\nZwei."
    ]


def test_a_json_lines_file_has_a_text_a_line_in_the_field_that_is_chosen(source):
    lines = [{"text": f"Text {n}.", "body": f"Body {n}."} for n in range(3)]
    content = "\n\n".join(json.dumps(line) for line in lines) + "\n"
    assert list(source("a.jsonl", content).texts()) == ["Text 0.", "Text 1.", "Text 2."]
    assert list(source("a.jsonl#body", content).texts()) == ["Body 0.", "Body 1.", "Body 2."]
    assert [where.rpartition("/")[2] for where, _ in source("a.jsonl").rows()] == [
        "a.jsonl line 1",
        "a.jsonl line 3",
        "a.jsonl line 5",
    ]


def test_a_file_whose_name_has_a_number_sign_is_that_file(source):
    assert list(source("a.txt", "A.").texts()) == ["A."]
    (path := source("a.txt").path.with_name("a#b.txt")).write_text("B.")
    assert list(read_datasets(["x=a#b.txt"], path.parent)["x"].texts()) == ["B."]


def test_texts_of_white_space_only_are_left_out(source):
    content = '{"text": " "}\n{"text": ""}\n{"text": "A."}\n'
    assert list(source("a.jsonl", content).texts()) == ["A."]
    with pytest.raises(CasesError, match=r"haystack=b\.txt holds no text"):
        source("b.txt", " \n").sample(texts=1)


def test_nulls_are_left_out_and_counted(source):
    content = '{"text": null}\n{"text": "A."}\n{"text": " "}\n{"text": "B."}\n{"text": null}\n'
    data = source("a.jsonl", content)
    assert list(data.documents()) == [("line 2", "A."), ("line 4", "B.")]
    assert data.sample(texts=1).origin.startswith("a.jsonl (1 text, 1 without text left out, ")
    assert data.sample().origin.startswith("a.jsonl (2 texts, 3 without text left out, sha256 ")
    assert data.sample(texts=2).origin.startswith("a.jsonl (2 texts, 2 without text left out, ")
    with pytest.raises(CasesError, match=r"b\.jsonl holds no text: 1 without text left out"):
        source("b.jsonl", '{"text": null}').sample()


def test_a_json_array_is_its_rows(source):
    rows = [{"id": n, "text": f"Text {n}.", "body": None if n else "Body."} for n in range(3)]
    data = source("a.json", json.dumps(rows, indent=2))
    assert [row for _, row in data.rows()] == rows
    assert list(data.documents()) == [(str(n), f"Text {n}.") for n in range(3)]
    assert list(source("a.json#body").texts()) == ["Body."]
    assert data.document() == rows
    assert list(source("b.json", '\ufeff[{"text": "A."}]').documents()) == [("row 1", "A.")]


def test_a_json_file_of_rows_in_another_form_is_its_rows(source):
    rows = [{"id": 0, "text": "A."}, {"id": 1, "text": None}, {"id": 2, "text": "C."}]
    forms = [  # the first three as pandas' to_json writes them
        '{"id":{"0":0,"1":1,"2":2},"text":{"0":"A.","1":null,"2":"C."}}',
        '{"0":{"id":0,"text":"A."},"1":{"id":1,"text":null},"2":{"id":2,"text":"C."}}',
        '{"id":0,"text":"A."}\n{"id":1,"text":null}\n{"id":2,"text":"C."}\n',
        json.dumps({"id": [0, 1, 2], "text": ["A.", None, "C."]}),
        json.dumps({"data": rows}),
    ]
    for number, text in enumerate(forms):
        data = source(f"{number}.json", text)
        assert [row for _, row in data.rows()] == rows
        assert [text for _, text in data.documents()] == ["A.", "C."]
    for columns in ({"id": [0], "text": ["A.", "B."]}, {"id": {"0": 0}, "text": {"1": "B."}}):
        with pytest.raises(CasesError, match="nor an object of columns of the same length"):
            list(source("a.json", json.dumps(columns)).rows())
    with pytest.raises(CasesError, match=r"b\.json line 2 is no JSON"):
        list(source("b.json", '{"text": "A."}\n{"text"').rows())


def test_a_very_long_file_of_columns_is_not_read_to_its_end(source, monkeypatch):
    monkeypatch.setattr(rows, "MAX_ARRAY", 100)
    with pytest.raises(CasesError, match=r"longer than 100 bytes: save it as \.jsonl"):
        list(source("a.json", json.dumps({"text": ["x" * 100]})).rows())
    long = [{"text": "x" * 60}, {"text": "y" * 60}]
    assert [row for _, row in source("b.json", json.dumps(long)).rows()] == long


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(values, max_size=6), st.sampled_from([None, 1, "\t"]), st.integers(1, 40))
def test_an_array_is_read_alike_in_pieces_of_any_size(tmp_path_factory, items, indent, chunk):
    path = tmp_path_factory.mktemp("array") / "a.json"
    path.write_text(json.dumps(items, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "CHUNK", chunk)
        assert list(json_array.array_items(path)) == items


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"text": "A."}, {"text"', r"a\.json row 2 is no JSON"),
        ('[{"text": "A."}', r"a\.json after row 1 is no JSON: there is no '\]'"),
        ('[{"text": "A."} {"text": "B."}]', r"a\.json after row 1 is no JSON: there is no '\]'"),
        ('[{"text": "A."},]', r"a\.json row 2 is no JSON"),
        ('[{"text": "A."}] {"text": "B."}', "there is more after its array"),
        ('[{"text": "A."}, 3]', r"a\.json row 2 is a int and not a JSON object"),
        ('[{"text": ' + "[" * 100_000, "row 1 is no JSON: it is nested too deeply"),
    ],
)
def test_an_array_that_breaks_off_says_after_which_row(source, text, said):
    with pytest.raises(CasesError, match=said):
        list(source("a.json", text).rows())


def test_of_an_array_no_more_is_read_than_is_asked_for(source):
    good = json.dumps([{"text": "A."}, {"text": "x" * 2 * json_array.CHUNK}])[:-1]
    assert source("a.json", good + ", broken").sample(texts=1).texts == ("A.",)


def test_a_row_of_an_array_has_an_end(source, monkeypatch):
    monkeypatch.setattr(json_array, "MAX_ROW", 100)
    monkeypatch.setattr(json_array, "CHUNK", 30)
    with pytest.raises(CasesError, match="row 2 is longer than 100 characters"):
        list(source("a.json", json.dumps([{"text": "A."}, {"text": "x" * 300}])).rows())


def test_a_document_is_what_a_json_file_holds(source):
    assert source("a.json", '{"type": "object"}').document() == {"type": "object"}


def test_a_sample_is_the_first_texts_with_their_number_and_a_hash_of_what_is_used(source):
    content = "".join(f'{{"text": "Text {n}."}}\n' for n in range(9))
    data = source("a.jsonl", content)
    three = data.sample(texts=3)
    assert three.texts == ("Text 0.", "Text 1.", "Text 2.")
    assert three.origin.startswith("a.jsonl (3 texts, sha256 ")
    assert data.sample(characters=15).texts == three.texts
    assert data.sample(characters=14).texts == three.texts[:2]
    every = data.sample(texts=99)
    assert every.origin.startswith("a.jsonl (9 texts, ")
    assert data.sample(texts=2, longest=4).texts == ("Text", "Text")
    assert data.sample(texts=1).origin.startswith("a.jsonl (1 text, ")
    changed = source("a.jsonl", content.replace("Text 8", "Text 7"))
    assert changed.sample(texts=3).origin == three.origin
    assert changed.sample(texts=9).origin != every.origin


def test_the_hash_tells_where_one_text_ends(source):
    one, other = ('{"text": "ab"}\n{"text": "c"}', '{"text": "a"}\n{"text": "bc"}')
    assert source("a.jsonl", one).sample(texts=2).origin != (
        source("a.jsonl", other).sample(texts=2).origin
    )


def test_a_file_is_read_no_further_than_is_needed(source, monkeypatch):
    data = source("a.jsonl", '{"text": "A."}\n{"text": "B."}\nthis is no JSON\n')
    assert data.sample(texts=2).texts == ("A.", "B.")
    with pytest.raises(CasesError, match="line 3"):
        data.sample(texts=3)
    monkeypatch.setattr(rows, "MAX_TEXT", 5)
    assert list(source("a.txt", "123456789").texts()) == ["12345"]


@settings(deadline=None, max_examples=50)
@given(content=st.binary(max_size=60))
def test_no_content_breaks_the_reading(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("any")
    for name in ("a.txt", "a.jsonl", "a.json"):
        (folder / name).write_bytes(content)
        data = read_datasets([f"x={name}"], folder)["x"]
        for read in (data.texts, data.rows, lambda data=data: [data.document()]):
            with suppress(CasesError):
                list(read())


# What cannot be read


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("no JSON", "line 2 is no JSON: JSONDecodeError"),
        ('{"text": "cut', "line 2 is no JSON"),
        ("[" * 100_000, "line 2 is no JSON: RecursionError"),
        (b'{"text": "\xff"}', "line 2 is no JSON: UnicodeDecodeError"),
        ('["text"]', "line 2 is a list and not a JSON object"),
        ('{"body": "x", "n": 1}', r"line 2 has no text in the field 'text'.*it has body"),
        ('{"text": 3}', "it has no text at all"),
        ('{"b": "x"}', "it has b"),
        ('{"text": "\\ud800"}', "line 2 holds half of a surrogate pair"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(source, line, words):
    line = line if isinstance(line, bytes) else line.encode()
    data = source("a.jsonl", b'{"text": "A."}\n' + line + b"\n")
    with pytest.raises(CasesError, match=rf"^--llmprobe-dataset haystack=a\.jsonl: .*{words}"):
        list(data.texts())


def test_a_very_long_line_is_not_read_to_its_end(source, monkeypatch):
    monkeypatch.setattr(rows, "MAX_LINE", 100)
    data = source("a.jsonl", b'{"text": "A."}\n' + b"x" * 1_000)
    with pytest.raises(CasesError, match="line 2 is longer than 100 bytes"):
        list(data.rows())


def test_a_text_that_is_not_utf_8_is_named(source):
    source("texts/a.txt", "fine")
    with pytest.raises(CasesError, match=r"b\.txt cannot be read: UnicodeDecodeError"):
        list(source("texts/b.txt", b"\xff\xfe").texts())


def test_a_source_of_another_kind_is_refused(source):
    with pytest.raises(CasesError, match=r"a \.txt file has no rows; give a \.jsonl"):
        list(source("a.txt", "A.").rows())
    source("texts/a.txt", "A.")
    with pytest.raises(CasesError, match="a folder has no rows"):
        list(source("texts").rows())
    with pytest.raises(CasesError, match=r"a\.json has no rows: it is a dict and neither an array"):
        list(source("a.json", "{}").texts())
    with pytest.raises(CasesError, match=r"a\.json row 2 is a int and not a JSON object"):
        list(source("a.json", "[{}, 3]").rows())
    with pytest.raises(CasesError, match=r"haystack=a\.txt: give a \.json file"):
        source("a.txt").document()
    with pytest.raises(CasesError, match=r"a\.json is no JSON: JSONDecodeError"):
        source("a.json", "{").document()


# The option


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("haystack", "give NAME=SOURCE"),
        ("haystack=", "give NAME=SOURCE"),
        ("=texts", "give NAME=SOURCE"),
        ("hay stack=texts", "give NAME=SOURCE"),
        ("haystack=nowhere.txt", r"there is no file or folder .*/nowhere\.txt; give a folder"),
        ("haystack=./nowhere", "there is no file or folder"),
        ("haystack=a/b/c", "there is no file or folder"),
        ("haystack=a/b.jsonl#x", "there is no file or folder"),
        ("haystack=a.csv", r"a\.csv has the extension '\.csv'; give a folder of \.txt files"),
        ("haystack=plain", r"plain has the extension ''"),
        ("haystack=empty", r"the folder .*empty holds no \.txt file"),
        ("haystack=a.txt#field", r"a\.txt has no fields; leave the '#'"),
        ("haystack=a.jsonl#", "there is no field after the '#'"),
    ],
)
def test_an_option_that_cannot_be_used_is_named_with_its_remedy(tmp_path, option, words):
    for name in ("a.csv", "plain", "a.txt", "a.jsonl"):
        (tmp_path / name).write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match=rf"^--llmprobe-dataset {option}: .*{words}"):
        read_datasets([option], tmp_path)


def test_a_name_that_is_given_twice_is_refused(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("x")
    with pytest.raises(SettingsError, match=r"haystack is given twice: a\.txt, b\.txt"):
        read_datasets(["haystack=a.txt", "haystack=b.txt"], tmp_path)
    assert list(read_datasets(["x=a.txt", "y=a.txt"], tmp_path)) == ["x", "y"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="everything can be read")
def test_a_file_that_may_not_be_read_is_found_at_once(tmp_path):
    (tmp_path / "a.txt").touch(mode=0o000)
    with pytest.raises(SettingsError, match="cannot be read: Permission denied"):
        read_datasets(["x=a.txt"], tmp_path)


def test_no_options_are_no_data(tmp_path):
    assert read_datasets([], tmp_path) == {}


def test_a_suite_gives_its_data_and_remembers_what_was_asked_for(source):
    data = source("a.txt", "A.")
    suite = Suite(datasets={"haystack": data})
    assert suite.dataset("haystack") is data
    assert suite.dataset("other") is None
    assert suite.asked == {"haystack", "other"}
    assert suite == Suite()
    assert Suite().asked == set()


# The hub


@pytest.mark.parametrize(
    ("given", "asked", "text"),
    [
        ("org/name", ("org/name", "train"), "T"),
        ("org/name-1.0:test", ("org/name-1.0", "test"), "T"),
        ("org/name#body", ("org/name", "train"), "B"),
        ("org/name:dev.x#body", ("org/name", "dev.x"), "B"),
        ("org/name:law:test", ("org/name", "test", "law"), "T"),
        ("org/name:law:test@v1.0/x#body", ("org/name", "test", "law", "v1.0/x"), "B"),
        ("org/name@main", ("org/name", "train", None, "main"), "T"),
    ],
)
@pytest.mark.parametrize("offline", [False, True])
def test_a_hub_data_set_is_streamed_or_taken_from_the_cache(
    source, packages, monkeypatch, given, asked, text, offline
):
    calls = []

    def load_dataset(hub, split, streaming, **chosen):
        given = [chosen.get("name"), chosen.get("revision")]
        while given and given[-1] is None:
            given.pop()
        calls.append((hub, split, *given, streaming))
        return iter([{"text": "T", "body": "B"}] * 3)

    packages(load_dataset)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(rows, "hub_is_reachable", lambda: True)
    data = source(given)
    assert calls == []
    assert list(data.texts()) == [text] * 3
    assert calls == [(*asked, not offline)]
    assert [where for where, _ in data.rows()] == [f"{asked[0]} row {n}" for n in (1, 2, 3)]


@pytest.mark.parametrize("offline", [False, True])
def test_a_hub_data_set_that_cannot_be_had_says_what_to_do(source, packages, monkeypatch, offline):
    def load_dataset(name, split, streaming):
        yield {"text": "T"}
        raise ConnectionError(f"no route to {name}\nand a long story")

    packages(load_dataset)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(rows, "hub_is_reachable", lambda: True)
    with pytest.raises(CasesError) as caught:
        list(source("org/name").texts())
    assert "org/name, split 'train': ConnectionError: no route to org/name (" in str(caught.value)
    assert ("HF_HUB_OFFLINE is set" in str(caught.value)) is offline
    assert "long story" not in str(caught.value)


def test_a_hub_data_set_without_a_network_is_one_line_and_no_try(source, packages, monkeypatch):
    packages(lambda *_, **__: pytest.fail("was asked"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CasesError, match=r"org/name: the hub cannot be reached; HF_HUB_OFFLINE=1"):
        list(source("org/name").texts())


@pytest.mark.usefixtures("without_packages")
def test_without_the_packages_the_error_says_how_to_install_them(source):
    with pytest.raises(SettingsError, match=r"pip install 'pytest-llmprobe\[datasets\]'"):
        source("org/name")
    with pytest.raises(CasesError, match=r"pip install 'pytest-llmprobe\[datasets\]'"):
        list(source("a.parquet", b"PAR1").texts())


def test_a_parquet_file_is_read_in_batches(source, packages):
    class ParquetFile:
        def __init__(self, path):
            if path.read_bytes() != b"PAR1":
                raise ValueError("Parquet magic bytes not found")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def iter_batches(self, size):
            for n in range(2):
                yield types.SimpleNamespace(
                    to_pylist=lambda n=n: [{"text": f"{n}{i}"} for i in "ab"]
                )

    packages(parquet_file=ParquetFile)
    assert list(source("a.parquet", b"PAR1").texts()) == ["0a", "0b", "1a", "1b"]
    with pytest.raises(CasesError, match="row 1 has no text in the field 'body'"):
        list(source("a.parquet#body").texts())
    with pytest.raises(CasesError, match=r"a\.parquet cannot be read: ValueError: Parquet magic"):
        list(source("a.parquet", b"no").rows())
