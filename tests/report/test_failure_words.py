"""The short word for a miss, and counts of such words that stay small whatever is said."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pytest_llmprobe
from pytest_llmprobe.experiments.answers import WRONG, is_final
from pytest_llmprobe.report.failures import MAX_LENGTH, MAX_WORDS, OTHER, failure_word, verdict_word
from pytest_llmprobe.report.misses import MAX_KINDS, Kinds
from pytest_llmprobe.report.record import Record

PACKAGE = Path(pytest_llmprobe.__file__).parent
SOURCES = [*PACKAGE.glob("experiments/**/*.py"), *(PACKAGE.parent / "evals").rglob("*.py")]

WORDS = {
    "start_key: it gives the key ab12 that was asked for": "start_key",
    "stopped_12_hops_early: 3f is on the thread": "stopped_n_hops_early",
    "Wrong: another text": "wrong",
    "cut_off:": "cut_off",
    "it scores 3.125, above 2.000": "it scores",
    "it says tokens of the corpus: {3: 4}": "it says tokens of the corpus",
    "it goes on with all 12 characters of the text": "it goes on with all",
    "expected 'a', got 'b'": "expected",
    "it doesn't match": "it doesn't match",
    "too short": "too short",
    "not surely better than chance: skill within [0, 1]": "not surely better than chance",
    "assert 'one' == 'two'": OTHER,
    "the assertion failed": OTHER,
    "12 != 13": OTHER,
    "'x' is wrong": OTHER,
    "number5 is wrong": OTHER,
    "": OTHER,
    "x" * 10_000: OTHER,
    "one two three four five six seven eight": "one two three four five six",
    f"short {'x' * 100}": "short",
    "http://evil": "http",
}


@pytest.mark.parametrize(("explanation", "word"), WORDS.items(), ids=range(len(WORDS)))
def test_an_explanation_has_a_word(explanation, word):
    assert failure_word(explanation) == word
    assert Record("a", "e", "missed", explanation=explanation).failure == word


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=200))
def test_a_word_is_short_and_of_one_line(explanation):
    word = failure_word(explanation)
    assert 0 < len(word) <= 2 * MAX_LENGTH  # a few letters become longer in lower case
    assert len(word.split(" ")) <= MAX_WORDS
    assert len(word.splitlines()) == 1


@pytest.mark.parametrize("outcome", ["passed", "error", "skipped"])
def test_what_did_not_miss_has_no_failure(outcome):
    record = Record("a", "e", outcome, explanation="start_key: x")
    assert record.failure is None
    assert Record.from_dict(record.as_dict()) == record


def test_a_record_keeps_its_failure_in_json_and_reads_it_back():
    record = Record("a", "e", "missed", explanation="start_key: x", cut_off_at=64)
    assert record.as_dict()["failure"] == "start_key"
    assert Record.from_dict(record.as_dict()) == record


@pytest.mark.parametrize("word", sorted(WRONG))
def test_a_final_failure_is_one_that_an_evaluation_says(word):
    sources = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    assert sources.count(word) > 1


@pytest.mark.parametrize(
    "word", ["cut_off", "no_uuid", "start_key", "no_object", "no_value", "undetectable", "wrong"]
)
def test_what_more_room_may_mend_is_not_final(word):
    assert not is_final(word)


def test_only_a_verdict_is_taken_for_one():
    assert verdict_word("no 5 in it") is None
    assert verdict_word("en: the answer's language") == "en"


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from([f"kind{n}" for n in range(40)] + [OTHER]), max_size=200))
def test_every_word_is_counted_once_and_the_commonest_by_name(words):
    kinds = Kinds()
    for word in words:
        kinds.add(word)
    counts = kinds.counts()
    assert sum(counts.values()) == len(words)
    assert len(counts) <= MAX_KINDS
    named = {word: count for word, count in counts.items() if word != OTHER}
    assert all(words.count(word) == count for word, count in named.items())
    left_out = set(words) - named.keys() - {OTHER}
    assert all(words.count(w) <= min(named.values()) for w in left_out)


def test_many_different_words_take_no_room():
    kinds = Kinds()
    for number in range(20_000):
        kinds.add(f"word{number}")
    assert len(vars(kinds)["_counts"]) <= 1_001
    assert sum(kinds.counts().values()) == 20_000
