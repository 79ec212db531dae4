"""Repeated words: every request says what is asked for, and answers are counted strictly."""

import random
import re
import string
import time

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


SEPARATED = {
    "commas": lambda said: ", ".join(said),
    "line breaks": lambda said: "\n".join(said),
    "bullets": lambda said: "\n".join(f"- {word}" for word in said),
    "stars": lambda said: "\n".join(f"* {word}" for word in said),
    "numbers": lambda said: "\n".join(f"{n}. {word}" for n, word in enumerate(said, 1)),
    "numbers on one line": lambda said: " ".join(f"({n}) {w}" for n, w in enumerate(said, 1)),
    "numbers behind": lambda said: ", ".join(f"{w} {n}" for n, w in enumerate(said, 1)),
    "quotes": lambda said: ", ".join(f'"{word}"' for word in said),
    "curly quotes": lambda said: " ".join(f"\u201c{word}\u201d" for word in said),
    "a list": lambda said: "[" + ", ".join(f"'{word}'" for word in said) + "]",
    "bold": lambda said: f"**{' '.join(said)}**",
    "a fence": lambda said: f"```\n{' '.join(said)}\n```",
    "sentences": lambda said: " ".join(f"{word.capitalize()}." for word in said),
    "capitals": lambda said: " ".join(said).upper(),
    "a capital first": lambda said: " ".join(said).capitalize() + ".",
    "dashes": lambda said: " \u2013 ".join(said),
    "an emoji": lambda said: f"{' '.join(said)} \U0001f600",
}
INTRODUCTIONS = (
    "",
    "Sure! ",
    "Here you go:\n\n",
    'Here is the word "{word}" repeated {count} times:\n',
    "Sure, here it is, {count} times: ",
    "Of course. I will repeat the word.\n",
    "**Answer:** ",
)
every_form = st.sampled_from(list(SEPARATED.values())), st.sampled_from(INTRODUCTIONS)


@many
@given(some_words, counts, *every_form)
def test_marks_and_numbers_between_and_an_introduction_before_do_not_matter(
    word, count, form, introduction
):
    answer = introduction.format(word=word, count=count) + form([word] * count)
    assert words.counted(answer, word) == count


@many
@given(some_words, counts, *every_form, st.sampled_from(WORDS), st.integers(0, 60))
def test_another_word_anywhere_between_is_no_answer(word, count, form, introduction, other, at):
    said = [word] * count
    said.insert(1 + at % count, other if other != word else "other")
    said.append(word)
    answer = introduction.format(word=word, count=count) + form(said)
    assert words.counted(answer, word) is None


@many
@given(
    some_words, counts, st.sampled_from(["and", "{word}s", "7000", "x{word}", "and so on", "times"])
)
def test_anything_else_behind_is_no_answer(word, count, extra):
    answer = words.repeated(word, count)
    assert words.counted(f"{answer} {extra.format(word=word)}", word) is None


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "",
            " ",
            "\n",
            "catcat",
            "dog dog",
            "cat dog",
            "cats cats",
            "concatenate",
            "5",
            "1. 2. 3.",
        ),
        *("1. cat\n3. cat", "2. cat\n3. cat", "cat x5", "cat \u00d7 5", "5 cat", "cat cat 2"),
        *("Sure! I will say cat.", "cat cat:\ndog", "cat ... (20 times)", "cat cat cat: cat dog"),
        'I cannot repeat "cat" 5 times.',
    ],
)
def test_no_word_or_another_is_no_answer(answer):
    assert words.counted(answer, "cat") is None


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("cat cat\ncat", 3),
        ("Sure! cat cat cat\ncat cat", 5),  # the first line is no introduction
        ("Here are 5: cat cat cat", 3),
        ("The word is cat: cat cat", 2),
    ],
)
def test_an_introduction_is_not_counted_and_takes_nothing_away(answer, count):
    assert words.counted(answer, "cat") == count


@pytest.mark.parametrize("piece", ["cat ", "cat:\n", "cat. ", "1 ", "!\n", "9"])
def test_a_long_answer_is_read_in_linear_time(piece):
    def seconds(times):
        start = time.process_time()
        words.counted(piece * times, "cat")
        words.counted(piece * times, "dog")
        return time.process_time() - start

    assert seconds(20_000) < 0.5 + 40 * seconds(2_000)


@pytest.mark.parametrize(
    "word", ["word12", "e-mail", "l'eau", "two words", "\u00e9t\u00e9", "\u732b"]
)
def test_words_of_any_form_are_counted(word):
    for form in SEPARATED.values():
        assert words.counted(form([word] * 3), word) == 3
    assert words.counted(f"{word} {word}x", word) is None


def test_an_answer_of_no_words_is_empty():
    assert words.repeated("cat", 0) == ""
