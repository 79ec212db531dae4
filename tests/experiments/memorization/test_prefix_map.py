"""Prefix maps: what is cut, what is left out, and that a saved map gives the same back."""

import io
import itertools
import json
import random
import tracemalloc
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.experiments.memorization.prefix_map.cutting import (
    PrefixCut,
    TextTokenizer,
    make_prefix_map,
)
from pytest_llmprobe.experiments.memorization.prefix_map.files import (
    PrefixEntry,
    Skipped,
    load_prefix_map,
)
from pytest_llmprobe.models.registry import REFERENCE
from pytest_llmprobe.models.text_tokenizer import text_tokenizer

many = settings(deadline=None, max_examples=60)
NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=timezone.utc)
CHARACTERS = TextTokenizer(
    lambda text: [ord(c) for c in text], lambda ids: "".join(map(chr, ids)), "characters"
)


@pytest.fixture
def made(tmp_path):
    """Make a map of texts, one token a character, and open it."""

    def made(texts, documents=None, **cut):
        documents = documents or ((f"d{n}", text) for n, text in enumerate(texts))
        options = {"model": "m", "dataset": "c", "now": NOON}
        folder = make_prefix_map(
            documents, CHARACTERS, PrefixCut(**cut), tmp_path / "maps", **options
        )
        return load_prefix_map(folder, "characters")

    return made


@pytest.fixture(scope="module")
def reference():
    return AutoTokenizer.from_pretrained(REFERENCE)


def text_of(ids):
    return CHARACTERS.decode(ids.tolist())


def shown(entry):
    return entry.document, entry.start, text_of(entry.prefix_ids), text_of(entry.suffix_ids)


# Cutting


@pytest.mark.parametrize(
    ("location", "start"), [("start", 0), (0, 0), (3, 3), (7, 7), (8, 7), (10**9, 7)]
)
def test_a_place_is_clamped_to_the_last_one_where_the_prefix_fits(location, start):
    text = "abcdefghij"
    entry = PrefixCut(3, location).of("d", CHARACTERS.encode(text), CHARACTERS.decode)
    assert shown(entry) == ("d", start, text[start : start + 3], text[start + 3 :])
    assert entry.prefix == text[start : start + 3]


@many
@given(
    st.lists(st.integers(0, 99), max_size=20),
    st.integers(1, 8),
    st.sampled_from(["start", "random"]) | st.integers(0, 25),
    st.none() | st.integers(9, 25),
    st.integers(0, 3),
)
def test_prefix_and_suffix_are_the_document_from_the_start_on(ids, p, location, crop, seed):
    entry = PrefixCut(p, location, None, crop, seed).of("d", ids, str)
    kept = ids[:crop]
    if len(kept) < p:
        assert entry == Skipped("d", f"it has {len(kept)} tokens, and a prefix has {p}")
        return
    assert isinstance(entry, PrefixEntry)
    assert len(entry.prefix_ids) == p
    assert [*kept[: entry.start], *entry.prefix_ids, *entry.suffix_ids] == kept
    assert entry.prefix == str(kept[entry.start : entry.start + p])


def test_a_random_place_is_uniform_and_depends_on_seed_and_document_only():
    def starts(seed, documents):
        cut = PrefixCut(2, "random", seed=seed)
        return [cut.of(d, range(6), str).start for d in documents]

    names = [f"d{n}" for n in range(1000)]
    found = starts(0, names)
    assert starts(0, reversed(names)) == found[::-1]
    assert starts(1, names) != found
    # 200 at each of the five places, with a standard deviation of 12.6
    assert all(abs(found.count(place) - 200) < 60 for place in range(5))


@pytest.mark.parametrize(
    "options",
    [
        {"prefix_tokens": 0},
        {"prefix_tokens": 3, "location": -1},
        {"prefix_tokens": 3, "location": "end"},
        {"prefix_tokens": 3, "size": 0},
        {"prefix_tokens": 3, "document_tokens": 3},
    ],
)
def test_what_cannot_be_cut_is_refused(options):
    with pytest.raises(SettingsError):
        PrefixCut(**options)


# Maps


@many
@given(texts=st.lists(st.text("abcé\n\u2028", max_size=12), min_size=1, max_size=6))
def test_a_saved_map_gives_back_what_was_cut(tmp_path_factory, texts):
    cut = PrefixCut(2, 1)
    cuts = [
        cut.of(f"d{n}", CHARACTERS.encode(text), CHARACTERS.decode) for n, text in enumerate(texts)
    ]
    entries = [shown(c) for c in cuts if isinstance(c, PrefixEntry)]
    documents = ((f"d{n}", text) for n, text in enumerate(texts))
    parent = tmp_path_factory.mktemp("maps")
    options = {"model": "m", "dataset": "c"}
    if not entries:
        with pytest.raises(CasesError, match="none of the"):
            make_prefix_map(documents, CHARACTERS, cut, parent, **options)
        assert list(parent.iterdir()) == []
        return
    folder = make_prefix_map(documents, CHARACTERS, cut, parent, **options)
    prefix_map = load_prefix_map(folder, "characters")
    assert [shown(entry) for entry in prefix_map] == entries
    assert [entry.prefix for entry in prefix_map] == [prefix for _, _, prefix, _ in entries]
    assert len(prefix_map) == len(entries)
    assert shown(prefix_map[-1]) == entries[-1]
    assert list(prefix_map.skipped()) == [c for c in cuts if isinstance(c, Skipped)]


def test_the_arrays_are_mapped_and_any_tool_can_read_them(made):
    prefix_map = made(["abcdef", "ab", "xyz"], prefix_tokens=2)
    folder = prefix_map.folder
    assert isinstance(prefix_map.suffix_ids, np.memmap)
    prefixes = np.load(folder / "prefix_ids.npy")
    assert [text_of(row) for row in prefixes] == ["ab", "ab", "xy"]
    suffixes, at = np.load(folder / "suffix_ids.npy"), np.load(folder / "suffix_offsets.npy")
    assert at.tolist() == [0, 4, 4, 5]
    assert [text_of(suffixes[a:b]) for a, b in itertools.pairwise(at)] == ["cdef", "", "z"]
    lines = (folder / "entries.jsonl").read_text().splitlines()
    assert json.loads(lines[2]) == {"document": "d2", "start": 0, "prefix": "xy"}
    assert {path.suffix for path in folder.iterdir()} == {".json", ".jsonl", ".npy"}


def test_the_header_of_an_array_keeps_its_size_however_many_rows_come():
    def header(rows):
        file = io.BytesIO()
        fields = {"descr": "<i4", "fortran_order": False, "shape": (rows, 50)}
        np.lib.format.write_array_header_1_0(file, fields)
        return len(file.getvalue())

    assert header(0) == header(10**18)  # what GrowingArray relies on


def test_the_metadata_says_how_it_was_made(made):
    prefix_map = made(
        ["abcdef", "a", "xyz", "never read"], prefix_tokens=2, size=2, document_tokens=5
    )
    metadata = prefix_map.metadata
    assert metadata["parameters"] == {
        "prefix_tokens": 2,
        "location": "start",
        "size": 2,
        "document_tokens": 5,
        "seed": 0,
    }
    assert metadata["tokenizer_hash"] == "characters"
    assert metadata["corpus"]["documents"] == 3
    assert (metadata["model"], metadata["dataset"]) == ("m", "c")
    assert (metadata["entries"], metadata["skipped"], metadata["suffix_tokens"]) == (2, 1, 4)
    assert metadata["created"] == "2026-01-02T12:00:00+00:00"


@pytest.mark.parametrize(
    ("model", "dataset", "location", "name"),
    [
        ("open_llama-3b", "corpus.jsonl", "start", "open_llama-3b_corpus.jsonl_2_start_"),
        ("Qwen/Qwen3-0.6B@main", "org/texts:test#body", "random", "Qwen3-0.6B-main_texts-test-"),
        ("../..", "/tmp/Öl 5%/", 7, "unnamed_l-5_2_7_"),
        ("m" * 300, "c", "start", "m" * 60 + "_c_2_start_"),
    ],
)
def test_a_folders_name_says_what_it_is_and_suits_any_file_system(
    tmp_path, model, dataset, location, name
):
    now = NOON.astimezone(timezone(timedelta(hours=2)))
    folder = make_prefix_map(
        [("d", "abcd")],
        CHARACTERS,
        PrefixCut(2, location),
        tmp_path,
        model=model,
        dataset=dataset,
        now=now,
    )
    assert folder.parent == tmp_path
    assert folder.name.startswith(name)
    assert folder.name.endswith("_20260102T120000Z")


def test_two_maps_of_one_second_have_two_folders(made):
    folders = [made(["abc"], prefix_tokens=2).folder.name for _ in range(3)]
    assert folders == ["m_c_2_start_20260102T120000Z" + end for end in ("", "-2", "-3")]


def test_maps_of_other_corpora_and_cuts_have_another_digest(made):
    digests = [
        made(["abcd"], prefix_tokens=2).digest,
        made(["abce"], prefix_tokens=2).digest,
        made(["abcd"], prefix_tokens=3).digest,
    ]
    assert len(set(digests)) == 3
    assert made(["abcd"], prefix_tokens=2).digest == digests[0]


def test_no_more_is_read_than_the_map_takes(made):
    endless = ((str(n), "abcd") for n in itertools.count())
    assert len(made([], endless, prefix_tokens=2, size=5)) == 5
    assert next(endless)[0] == "5"


def test_memory_does_not_grow_with_the_corpus(made):
    rng = random.Random(0)
    document = "".join(rng.choices("abcdefgh", k=5_000))

    def peak(documents):
        tracemalloc.start()
        corpus = ((str(n), document) for n in range(documents))
        assert len(made([], corpus, prefix_tokens=10)) == documents
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    few = peak(5)
    assert peak(45) < few + 100_000  # 40 documents more have 800 kB of ids


def test_a_failure_leaves_no_folder(made, tmp_path):
    def documents():
        yield "d", "abcd"
        raise CasesError("row 2 cannot be read")

    with pytest.raises(CasesError, match="row 2"):
        made([], documents(), prefix_tokens=2)
    assert list((tmp_path / "maps").iterdir()) == []


def test_a_place_where_nothing_can_be_written_is_said(made, tmp_path):
    (tmp_path / "maps").write_text("a file")
    with pytest.raises(CasesError, match=r"maps.*cannot be written"):
        made(["abc"], prefix_tokens=2)


def test_progress_is_told_after_each_document(tmp_path):
    told = []
    make_prefix_map(
        [("a", "abcd"), ("b", "a"), ("c", "abcd")],
        CHARACTERS,
        PrefixCut(2),
        tmp_path,
        model="m",
        dataset="c",
        on_progress=lambda entries, skipped: told.append((entries, skipped)),
    )
    assert told == [(1, 0), (1, 1), (2, 1)]


# Loading


def test_another_tokenizer_is_refused(made):
    folder = made(["abc"], prefix_tokens=2).folder
    with pytest.raises(CasesError, match=r"tokenizer of 'm'.*the hash words.*make a map"):
        load_prefix_map(folder, "words")
    assert len(load_prefix_map(folder, None)) == 1


def test_a_folder_that_is_no_finished_map_is_refused(made, tmp_path):
    with pytest.raises(CasesError, match="no finished prefix map"):
        load_prefix_map(tmp_path, None)
    with pytest.raises(CasesError, match="no finished prefix map"):
        load_prefix_map(tmp_path / "absent", None)
    folder = made(["abc"], prefix_tokens=2).folder
    (folder / "metadata.json").unlink()
    with pytest.raises(CasesError, match="no finished prefix map"):
        load_prefix_map(folder, None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.json", b"[]"),
        ("metadata.json", b"{"),
        ("metadata.json", b'{"version": 99, "tokenizer_hash": "", "model": ""}'),
        ("prefix_ids.npy", b"no array"),
        ("prefix_ids.npy", b""),
        ("prefix_ids.npy", None),
        ("suffix_offsets.npy", None),
        ("entries.jsonl", b"{}\n"),
        ("entries.jsonl", None),
    ],
)
def test_a_damaged_map_is_refused(made, name, content):
    folder = made(["abcd", "efgh"], prefix_tokens=2).folder
    path = folder / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(CasesError, match=r"damaged|cannot be read|version 99"):
        load_prefix_map(folder, None)


@pytest.mark.parametrize("name", ["prefix_ids", "suffix_ids", "suffix_offsets", "line_offsets"])
def test_cut_off_and_foreign_arrays_are_refused(made, name):
    folder = made(["abcd", "efgh"], prefix_tokens=2).folder
    path = folder / f"{name}.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(CasesError, match="damaged"):
        load_prefix_map(folder, None)
    np.save(path, np.zeros(3))
    with pytest.raises(CasesError, match="damaged"):
        load_prefix_map(folder, None)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CasesError, match="damaged"):
        load_prefix_map(folder, None)


def test_lines_that_were_edited_are_noticed(made):
    folder = made(["abcd", "efgh"], prefix_tokens=2).folder
    path = folder / "entries.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"start": 0', b'"start": x'))
    with pytest.raises(CasesError, match="damaged"):
        list(load_prefix_map(folder, None))


# Tokenizers of transformers


def test_ids_and_texts_of_a_transformers_tokenizer(reference):
    tokenizer = text_tokenizer(reference)
    text = "The code of door 17 is 20."
    assert list(tokenizer.before) == [reference.bos_token_id]
    assert [*tokenizer.before, *tokenizer.encode(text)] == reference(text)["input_ids"]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([reference.bos_token_id]) == reference.bos_token


def test_a_call_does_not_change_the_hash_and_another_token_does():
    tokenizer = AutoTokenizer.from_pretrained(REFERENCE)
    before = text_tokenizer(tokenizer).hash
    tokenizer(["a", "a b c"], padding=True, truncation=True, max_length=2)
    assert text_tokenizer(tokenizer).hash == before
    tokenizer.add_tokens(["<new>"])
    assert text_tokenizer(tokenizer).hash != before


def test_a_tokenizer_without_a_backend_has_a_hash_of_its_vocabulary():
    class Slow:
        def __init__(self, words):
            self.words = words

        def get_vocab(self):
            return {word: n for n, word in enumerate(self.words)}

        def __call__(self, text, **options):
            return {"input_ids": [self.get_vocab()[word] for word in text.split()]}

    hashes = [text_tokenizer(Slow(words)).hash for words in ("ab", "ab", "ac")]
    assert hashes[0] == hashes[1] != hashes[2]
    assert text_tokenizer(Slow("ab")).before == ()
