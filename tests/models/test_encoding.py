"""Long texts: the tokens of pieces are those of the whole, and no piece is encoded twice."""

import json
import pickle
import random
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from some_tokenizers import NOWHERE, REFERENCE, SENTENCES, SHARES, SPECIAL, every_tokenizer, made
from tokenizers import Tokenizer, processors

from pytest_llmprobe.experiments import needle
from pytest_llmprobe.models import encoding
from pytest_llmprobe.models.cuts import MARKS, SPACES, cut_rule
from pytest_llmprobe.models.encoding import LongTexts
from pytest_llmprobe.models.encoding_cache import EncodingCache, user_cache

QUESTION = "\n\nKey: what is it?<|user|> "


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(encoding, "LONG", 1000)
    monkeypatch.setattr(encoding, "PIECE", 500)


def whole(tokenizer, text, special_tokens=False):
    return tokenizer.encode(text, add_special_tokens=special_tokens).ids


def haystack(n, seed=0):
    return needle.render(needle.random_pairs(n, random.Random(seed)))


class Counting:
    """Stands before a tokenizer and adds up what is encoded."""

    def __init__(self, texts):
        self.characters, self._encode = 0, texts._encode
        texts._encode = self

    def __call__(self, text, special_tokens=False):
        self.characters += len(text)
        return self._encode(text, special_tokens)


PARTS = (
    st.sampled_from(SENTENCES)
    | st.integers(1, 40).map(haystack)
    | st.sampled_from(
        [*SPECIAL, " ", "\n", "\t\r\n", "  ", ", ", "é", "😀", "▁", "don't", "1" * 30]
    )
    | st.text(max_size=20)
    | st.text("ab 1.\n", max_size=60)
)
TEXTS = st.lists(PARTS, min_size=5, max_size=40).map(" ".join)


@every_tokenizer
@settings(deadline=None, max_examples=40)
@given(text=TEXTS, ends=st.lists(PARTS, max_size=2))
def test_the_tokens_of_a_text_are_those_of_the_whole(name, text, ends):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "LONG", 1000)
        patch.setattr(encoding, "PIECE", 500)
        tokenizer = made(name)
        texts = LongTexts(tokenizer)
        text *= 7_000 // len(text) + 1
        for end in ["", *ends]:  # the pieces of the first are used for the others
            assert texts.ids(text + end) == whole(tokenizer, text + end)


@every_tokenizer
def test_where_each_kind_of_tokenizer_may_be_cut(name, small_pieces):
    tokenizer = made(name)
    rule = cut_rule(json.loads(tokenizer.to_str()))
    if name in NOWHERE:
        assert rule is None
    elif name != "reference":
        assert rule.place == (MARKS if name == "words with spaces" else SPACES)
        assert rule.words == (name != "without words")
    texts, text = LongTexts(tokenizer), haystack(200)
    assert texts.ids(text) == whole(tokenizer, text)
    assert (len(texts._memory) > 10) == (name in SHARES)


@pytest.mark.parametrize("name", SHARES)
def test_a_question_costs_its_own_characters_only(name):
    tokenizer = made(name)
    texts = LongTexts(tokenizer)
    counting, text = Counting(texts), haystack(900)
    asked = [text + QUESTION + str(number) for number in range(4)]
    assert texts.ids(asked[0]) == whole(tokenizer, asked[0])
    first = counting.characters
    for prompt in asked[1:]:
        assert texts.ids(prompt)[-3:] == whole(tokenizer, QUESTION + prompt[-1])[-3:]
    assert first < 1.2 * len(text)
    assert counting.characters - first < 3 * len(text) / 2


def test_special_tokens_go_around_a_long_text_once(small_pieces):
    tokenizer = Tokenizer.from_str(made("byte level").to_str())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|user|> $A [SEP]", special_tokens=[("<|user|>", 1), ("[SEP]", 2)]
    )
    texts = LongTexts(tokenizer)
    for text in ("a b", haystack(3), haystack(100)):
        for special in (False, True):
            assert texts.ids(text, special) == whole(tokenizer, text, special)
    assert texts.ids(haystack(100), True)[0] == 1


def test_a_text_without_a_place_to_cut_is_encoded_whole(small_pieces):
    texts = LongTexts(made("byte level"))
    for text in ("a" * 20_000, "a " * 10_000 + "b" * 9_000, "日本語" * 7_000, " " * 20_000):
        assert texts.ids(text) == whole(made("byte level"), text)


def test_an_added_token_at_every_space_prevents_cuts(small_pieces):
    tokenizer = Tokenizer.from_str(made("byte level").to_str())
    tokenizer.add_tokens([", "])
    texts = LongTexts(tokenizer)
    text = haystack(150).replace(": ", ":")
    assert texts._cuts(text) == []
    assert texts.ids(text) == whole(tokenizer, text)


def test_truncation_and_padding_of_the_tokenizer_are_not_those_of_the_texts(small_pieces):
    tokenizer = Tokenizer.from_str(made("byte level").to_str())
    tokenizer.enable_truncation(10)
    tokenizer.enable_padding(length=100)
    text = haystack(100)
    assert LongTexts(tokenizer).ids(text) == whole(made("byte level"), text)
    assert len(tokenizer.encode(text).ids) == 100


def test_pieces_that_disagree_are_not_joined(small_pieces, monkeypatch):
    texts, text = LongTexts(made("byte level")), haystack(100)
    monkeypatch.setattr(encoding, "_joined", lambda left, right: not left.ids)
    assert texts.ids(text) == whole(made("byte level"), text)
    assert len(texts._memory) == 1
    monkeypatch.undo()


def test_memory_is_bounded(small_pieces, monkeypatch):
    monkeypatch.setattr(encoding, "MEMORY", 6000)
    texts = LongTexts(made("byte level"))
    for seed in range(5):
        text = haystack(200, seed)
        assert texts.ids(text) == whole(made("byte level"), text)
        assert sum(len(piece.ids) for piece in texts._memory.values()) <= 6000


# On disk


@every_tokenizer
def test_a_second_run_encodes_nothing(name, small_pieces, tmp_path):
    tokenizer, text = made(name), haystack(120)
    asked = [text + QUESTION + str(number) for number in range(3)]
    first = LongTexts(tokenizer, EncodingCache(tmp_path))
    answers = [first.ids(prompt) for prompt in asked]
    again = LongTexts(tokenizer, EncodingCache(tmp_path))
    counting = Counting(again)
    assert [again.ids(prompt) for prompt in asked] == answers
    assert counting.characters == 0


def test_another_tokenizer_shares_nothing(small_pieces, tmp_path):
    text = haystack(120)
    for name in ("byte level", "llama 3", "word piece"):
        texts = LongTexts(made(name), EncodingCache(tmp_path))
        assert texts.ids(text) == whole(made(name), text)


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def pickled(path):
    path.write_bytes(pickle.dumps([1, 2, 3]))


def objects(path):
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def other_numbers(path):
    np.save(path, np.arange(20, dtype=np.float64))


def two_dimensions(path):
    np.save(path, np.zeros((4, 4), dtype=np.uint32))


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [cut_in_half, flip, empty, pickled, objects, other_numbers, two_dimensions, a_folder],
)
def test_a_damaged_file_counts_as_absent(damage, small_pieces, tmp_path):
    text, tokenizer = haystack(120), made("byte level")
    LongTexts(tokenizer, EncodingCache(tmp_path)).ids(text)
    files = sorted(tmp_path.glob("*/*.npy"))
    assert len(files) > 3
    for path in files:
        damage(path)
    assert LongTexts(tokenizer, EncodingCache(tmp_path)).ids(text) == whole(tokenizer, text)
    if damage is not a_folder:
        again = LongTexts(tokenizer, EncodingCache(tmp_path))
        counting = Counting(again)
        assert again.ids(text) == whole(tokenizer, text)
        assert counting.characters == 0


def test_a_file_of_lengths_that_cannot_be_counts_as_absent(small_pieces, tmp_path):
    text, tokenizer = haystack(120), made("byte level")
    cache = EncodingCache(tmp_path)
    LongTexts(tokenizer, cache).ids(text)
    for path in tmp_path.glob("*/*.npy"):
        cache.put(path.parent.name + path.stem, np.array([1000, 1000, 5]))
    assert LongTexts(tokenizer, cache).ids(text) == whole(tokenizer, text)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 2**31 - 1), max_size=50))
def test_the_cache_gives_back_what_it_was_given(tmp_path_factory, numbers):
    cache = EncodingCache(tmp_path_factory.mktemp("cache"))
    assert cache.get("abcd") is None
    cache.put("abcd", np.array(numbers, dtype=np.int64))
    assert cache.get("abcd").tolist() == numbers


def test_the_cache_removes_what_was_not_used_for_longest(tmp_path):
    cache = EncodingCache(tmp_path, limit=100_000)
    for number in range(60):
        cache.put(f"{number:04}", np.zeros(1000, dtype=np.int64))
        assert cache.get("0000") is not None  # used all the time
    size = sum(path.stat().st_size for path in tmp_path.glob("*/*"))
    assert 50_000 < size <= 130_000
    assert cache.get("0001") is None
    assert cache.get("0059") is not None


def test_a_folder_that_cannot_be_written_only_costs_time(small_pieces, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    texts = LongTexts(made("byte level"), EncodingCache(tmp_path / "file"))
    assert texts.ids(haystack(120)) == whole(made("byte level"), haystack(120))


SHARE = """
import random, sys
from pathlib import Path
from tokenizers import Tokenizer
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.models import encoding
from pytest_llmprobe.models.encoding_cache import EncodingCache
encoding.LONG, encoding.PIECE = 1000, 500
tokenizer = Tokenizer.from_file(sys.argv[1])
texts = encoding.LongTexts(tokenizer, EncodingCache(Path(sys.argv[2])))
for seed in range(4):
    text = needle.render(needle.random_pairs(100, random.Random(seed)))
    assert texts.ids(text) == tokenizer.encode(text, add_special_tokens=False).ids
"""


def test_two_processes_share_a_folder(tmp_path):
    command = [sys.executable, "-c", SHARE, str(REFERENCE / "tokenizer.json"), str(tmp_path)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert {path.suffix for path in tmp_path.glob("*/*")} == {".npy"}


def test_where_the_users_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMPROBE_CACHE", str(tmp_path))
    assert user_cache().folder == tmp_path / "encodings"
    for word in ("off", "0", "OFF"):
        monkeypatch.setenv("LLMPROBE_CACHE", word)
        assert user_cache() is None
    monkeypatch.delenv("LLMPROBE_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert user_cache().folder == tmp_path / "xdg" / "pytest-llmprobe" / "encodings"


def test_cuts_depend_on_the_text_before_them_only():
    texts, text = LongTexts(made("byte level")), haystack(2000)
    cuts = texts._cuts(text)
    assert len(cuts) == 4
    for longer in (text + QUESTION, text + haystack(500, 1)):
        assert texts._cuts(longer)[: len(cuts)] == cuts
    for before, after in pairwise([0, *cuts]):
        assert encoding.PIECE <= after - before < encoding.PIECE + encoding.AFTER
