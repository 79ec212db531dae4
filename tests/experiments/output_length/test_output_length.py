"""Repeated words: every request says what is asked for, and answers are counted strictly."""

import random
import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.experiments.output_length import words
from pytest_llmprobe.experiments.output_length.words import PHRASINGS, SAME_PROMPT, WORDS

many = settings(deadline=None, max_examples=200)
phrasings, some_words = st.sampled_from(PHRASINGS), st.sampled_from(WORDS)
counts = st.integers(1, 60)


# Requests


def test_there_are_52_different_phrasings():
    assert len(PHRASINGS) == len(set(PHRASINGS)) == 52
    assert SAME_PROMPT == PHRASINGS[0] == 'Repeat the word "{word}" {count} times.'


@pytest.mark.parametrize("phrasing", PHRASINGS)
def test_a_phrasing_is_short_and_holds_each_field_once(phrasing):
    fields = [field for _, field, _, _ in string.Formatter().parse(phrasing) if field]
    assert sorted(fields) == ["count", "word"]
    assert len(phrasing) <= 80
    assert phrasing == " ".join(phrasing.split())


def test_some_phrasings_put_the_count_first_and_some_end_with_the_word():
    count_first = [text for text in PHRASINGS if text.index("{count}") < text.index("{word}")]
    word_last = [text for text in PHRASINGS if re.search(r'\{word\}"?\W?$', text)]
    assert 10 <= len(count_first) <= 42
    assert len(word_last) >= 5


def test_words_are_plain_and_none_is_the_plural_of_another():
    assert 50 <= len(WORDS) == len(set(WORDS))
    assert all(re.fullmatch("[a-z]{3,8}", word) for word in WORDS)
    assert not {word + "s" for word in WORDS} & set(WORDS)


@many
@given(phrasings, some_words, counts)
def test_a_prompt_says_the_word_and_the_count(phrasing, word, count):
    prompt = words.prompt(phrasing, word, count)
    assert re.findall(r"\d+", prompt) == [str(count)]
    assert word in re.findall("[a-z]+", prompt)
    assert "{" not in prompt


def test_prompts_of_different_requests_differ():
    asked = [(text, word, count) for text in PHRASINGS for word in WORDS for count in (5, 15, 50)]
    assert len({words.prompt(*request) for request in asked}) == len(asked)


# Answers


@many
@given(some_words, counts)
def test_the_expected_answer_counts_as_asked(word, count):
    answer = words.repeated(word, count)
    assert words.counted(answer, word) == count
    assert answer.count(" ") == count - 1


@many
@given(some_words, counts, st.integers(0, 2**32))
def test_any_white_space_separates(word, count, seed):
    rng = random.Random(seed)
    answer = "".join(word + rng.choice([" ", "\n", "  ", "\t"]) for _ in range(count))
    assert words.counted(" " + answer, word) == count


@many
@given(
    some_words, counts, st.sampled_from(["and", "{word}.", "{word},", "{word}s", "1", "{capital}"])
)
def test_anything_beside_the_word_is_no_answer(word, count, extra):
    extra = extra.format(word=word, capital=word.upper())
    answer = words.repeated(word, count)
    assert words.counted(f"{answer} {extra}", word) is None
    assert words.counted(f"{extra} {answer}", word) is None


@pytest.mark.parametrize("answer", ["", " ", "\n", "catcat", "dog dog", "cat dog"])
def test_no_word_or_another_is_no_answer(answer):
    assert words.counted(answer, "cat") is None


def test_an_answer_of_no_words_is_empty():
    assert words.repeated("cat", 0) == ""
