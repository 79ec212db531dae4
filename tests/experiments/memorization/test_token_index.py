"""The index of tokens against a naive search through all documents, with and without collisions."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.experiments.memorization import token_index
from pytest_llmprobe.experiments.memorization.token_index import Match, build_index, window_hashes

many = settings(deadline=None, max_examples=100)
tokens = st.lists(st.integers(0, 2), max_size=25)


@st.composite
def corpora(draw):
    """Documents that repeat themselves, a window, and a text with pieces of them."""
    documents = draw(st.lists(tokens, min_size=1, max_size=5))
    window = draw(st.integers(1, 7))
    documents.append(draw(st.lists(st.integers(0, 2), min_size=window, max_size=window + 20)))
    named = [(f"d{number}", document) for number, document in enumerate(documents)]
    pieces = st.one_of(tokens, st.sampled_from(documents))
    text = [token for piece in draw(st.lists(pieces, max_size=3)) for token in piece]
    return named, window, text, draw(st.integers(0, 6))


def naive_find(documents, window, text, start):
    """The first document and offset of each window, or None."""
    return [
        next(
            (
                (name, offset)
                for name, document in documents
                for offset in range(len(document) - window + 1)
                if document[offset : offset + window] == text[begin : begin + window]
            ),
            None,
        )
        for begin in range(start, len(text) - window + 1)
    ]


def naive_run(documents, text):
    """Length, document and offset of the longest run that begins a text; the first if several."""
    runs = []
    for name, document in documents:
        for offset in range(len(document)):
            length = 0
            while document[offset + length :] and text[length:]:
                if document[offset + length] != text[length]:
                    break
                length += 1
            runs.append((length, name, offset))
    return max(runs, key=lambda run: run[0])


def naive_matches(documents, window, text, start):
    matches, end = [], start + window - 1
    for number, hit in enumerate(naive_find(documents, window, text, start)):
        begin = start + number
        if hit and begin + window > end:
            length, name, offset = naive_run(documents, text[begin:])
            matches.append(Match(begin, length, name, offset))
            end = begin + length
    return matches


def check(documents, window, text, start):
    index = build_index(documents, window)
    found = index.find(text, start)
    expected = naive_find(documents, window, text, start)
    assert [None if place < 0 else index.locate(place) for place in found] == expected
    assert index.matches(text, start) == naive_matches(documents, window, text, start)


@many
@given(corpora())
def test_the_index_finds_what_a_naive_search_finds(case):
    check(*case)


@pytest.mark.parametrize("kept_bits", [0, 1, 3])
def test_colliding_hashes_change_no_answer(monkeypatch, kept_bits):
    few = np.uint64((1 << kept_bits) - 1)
    monkeypatch.setattr(token_index, "window_hashes", lambda *args: window_hashes(*args) & few)

    @many
    @given(corpora())
    def agree(case):
        check(*case)

    agree()


@many
@given(tokens.filter(bool), st.integers(1, 25))
def test_equal_windows_and_no_others_have_equal_hashes(tokens, window):
    hashes = window_hashes(np.array(tokens, dtype=np.int32), min(window, len(tokens)))
    windows = [tuple(tokens[i : i + min(window, len(tokens))]) for i in range(len(hashes))]
    assert len(set(hashes.tolist())) == len(set(windows))
    assert len(set(zip(hashes.tolist(), windows, strict=True))) == len(set(windows))


@pytest.mark.parametrize("window", [1, 2, 3, 7, 50])
def test_hashes_of_a_hundred_thousand_windows_do_not_collide(window):
    ids = np.random.default_rng(window).integers(0, 300, 100_000, dtype=np.int32)
    windows = np.lib.stride_tricks.sliding_window_view(ids, window)
    different = len({row.tobytes() for row in np.ascontiguousarray(windows)})
    assert len(np.unique(window_hashes(ids, window))) == different


def test_a_match_says_where_and_how_long():
    index = build_index([("a", [1, 2, 3, 4, 5, 6]), ("b", []), ("c", [9, 3, 4, 5, 7])], 3)
    assert index.matches([0, 2, 3, 4, 5, 8]) == [Match(1, 4, "a", 1)]
    assert index.matches([0, 3, 4, 5, 7, 1, 2, 3]) == [Match(1, 4, "c", 1), Match(5, 3, "a", 0)]
    assert index.matches([0, 3, 4, 6]) == []


def test_runs_may_overlap_by_less_than_a_window():
    index = build_index([("a", [1, 2, 3, 4]), ("b", [3, 4, 5])], 3)
    assert index.matches([1, 2, 3, 4, 5]) == [Match(0, 4, "a", 0), Match(2, 3, "b", 0)]


def test_no_window_crosses_a_border():
    index = build_index([("a", [1, 2, 3]), ("b", [4, 5, 6])], 3)
    assert index.find([1, 2, 3, 4, 5, 6]).tolist() == [0, -1, -1, 4]
    assert index.matches([1, 2, 3, 4]) == [Match(0, 3, "a", 0)]


def test_windows_that_overlap_the_prompt_do_not_count():
    index = build_index([("a", list(range(10)))], 3)
    prompt, rest = [0, 1, 2], [3, 4, 5, 6]
    assert index.matches(prompt + rest, start=3) == [Match(3, 4, "a", 3)]
    assert len(index.find(prompt + rest, start=3)) == 2
    assert index.matches([*prompt, 3, 4], start=3) == []


def test_windows_are_counted_once_each_however_often_they_occur():
    index = build_index([("a", [1, 2, 3, 1, 2]), ("b", [1, 2, 7])], 2)
    counts = index.count_windows([([1, 2, 3], 0), ([0, 1, 2], 1), ([1, 2, 9, 2, 7], 0), ([5], 0)])
    assert sorted(counts.values()) == [1, 1, 3]
    assert {index.locate(place): n for place, n in counts.items()} == {
        ("a", 0): 3,
        ("a", 1): 1,
        ("b", 1): 1,
    }
    assert Counter(counts.values()) == {1: 2, 3: 1}


def test_a_text_shorter_than_a_window_has_none():
    index = build_index([("a", [1, 2, 3])], 3)
    for text, start in (([], 0), ([1, 2], 0), ([1, 2, 3], 1), ([1, 2, 3], 99)):
        assert index.find(text, start).tolist() == []
        assert index.matches(text, start) == []


def test_documents_are_read_one_by_one_and_may_be_arrays():
    def documents():
        for number in range(3):
            ids = np.arange(number, number + 5)
            yield str(number), ids
            ids[:] = 99  # what was read is a copy

    index = build_index(documents(), 5)
    assert index.matches(np.array([2, 3, 4, 5, 6])) == [Match(0, 5, "2", 0)]
    assert index.matches([99] * 5) == []


@pytest.mark.parametrize(
    "ids", [[1, -1], [1.5, 2], ["a"], [[1, 2]], [2**31], [2**70], [True], [None]]
)
def test_what_is_no_token_id_is_refused(ids):
    index = build_index([("a", [1])], 1)
    with pytest.raises(CasesError, match="the text: token ids"):
        index.find(ids)
    with pytest.raises(CasesError, match="document 'bad': token ids"):
        build_index([("a", [1]), ("bad", ids)], 1)


def test_the_largest_token_id_is_found():
    assert build_index([("a", [2**31 - 1, 0])], 2).find([2**31 - 1, 0]).tolist() == [0]


def test_a_corpus_without_a_window_is_refused():
    with pytest.raises(CasesError, match="none of 2 documents has 3 tokens"):
        build_index([("a", [1, 2]), ("b", [])], 3)
    with pytest.raises(CasesError, match="none of 0 documents has 50 tokens"):
        build_index([])


def test_impossible_settings_are_refused():
    with pytest.raises(SettingsError, match="window of 0"):
        build_index([("a", [1])], 0)
    with pytest.raises(SettingsError, match="start -1"):
        build_index([("a", [1])], 1).matches([1], start=-1)
