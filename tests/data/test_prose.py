"""Prose and invented names: plain sentences, nothing that gives an answer away, a clean split."""

import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.data import prose

many = settings(deadline=None, max_examples=200)
seeds = st.integers(0, 2**32)

LISTS = {
    "nouns": (prose.NOUNS, 150),
    "adjectives": (prose.ADJECTIVES, 60),
    "verbs": (prose.VERBS, 50),
    "cities": (prose.CITIES, 45),
    "first names": (prose.FIRST_NAMES, 45),
}


@pytest.mark.parametrize(("listed", "at_least"), LISTS.values(), ids=LISTS)
def test_a_list_has_enough_words_and_none_twice(listed, at_least):
    assert len(listed) == len(set(listed)) >= at_least
    assert all(word.isascii() and word.isalpha() for word in listed)


def test_no_word_is_in_two_lists():
    words = Counter(word.lower() for listed, _ in LISTS.values() for word in listed)
    assert [word for word, n in words.items() if n > 1] == []


@many
@given(seeds)
def test_a_sentence_starts_with_a_capital_and_ends_with_its_only_full_stop(seed):
    text = prose.sentence(random.Random(seed))
    assert text[0].isupper()
    assert text.endswith(".")
    assert text.count(".") == 1
    assert re.fullmatch(r"[A-Za-z ,]+\.", text)
    assert "  " not in text


@many
@given(seeds)
def test_a_sentence_names_no_thing_and_nobody_twice(seed):
    words = re.findall(r"\w+", prose.sentence(random.Random(seed)))
    content = [word for word in words if word in prose.NOUNS or word in prose.FIRST_NAMES]
    assert len(content) == len(set(content)) >= 1


@many
@given(seeds)
def test_an_article_fits_the_word_after_it(seed):
    text = prose.prose(random.Random(seed), 10)
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text)


def test_the_prose_uses_its_whole_lexicon_and_never_a_word_that_marks_a_fact():
    words = set(re.findall(r"\w+", prose.prose(random.Random(0), 20_000)))
    for listed, _ in LISTS.values():
        assert set(listed) <= words
    assert not words & {"magic", "secret", "home", "short", "title", "person", "event", "question"}
    assert len(words) < 500


@many
@given(seeds, st.integers(0, 30))
def test_prose_has_as_many_sentences_as_asked_for(seed, n):
    text = prose.prose(random.Random(seed), n)
    assert text.count(".") == n
    assert text == text.strip()
    assert len(re.split(r"(?<=\.) ", text)) == max(n, 1)


@many
@given(seeds, st.booleans())
def test_a_name_is_one_capitalised_word_of_the_right_part(seed, held_out):
    name = prose.made_up_name(random.Random(seed), held_out=held_out)
    assert re.fullmatch(r"[A-Z][a-z]{3,}", name)
    assert prose.is_held_out(name) is held_out


def test_no_name_is_a_word_that_the_prose_uses():
    words = {word.lower() for listed, _ in LISTS.values() for word in listed}
    rng = random.Random(0)
    for held_out in (True, False):
        names = {prose.made_up_name(rng, held_out=held_out).lower() for _ in range(50_000)}
        assert not names & words


def test_names_are_too_many_to_learn_by_heart():
    rng = random.Random(0)
    held_out = {prose.made_up_name(rng) for _ in range(20_000)}
    training = {prose.made_up_name(rng, held_out=False) for _ in range(20_000)}
    assert len(held_out) > 14_000
    assert len(training) > 17_000
    assert not held_out & training


def test_a_quarter_of_all_names_is_held_out_whatever_they_start_and_end_with():
    rng = random.Random(0)
    names = [prose.made_up_name(rng, held_out=rng.random() < 0.25) for _ in range(40_000)]
    for part in (slice(None, 1), slice(-1, None)):
        shares: dict[str, list[bool]] = {}
        for name in names:
            shares.setdefault(name[part], []).append(prose.is_held_out(name))
        for drawn in shares.values():
            if len(drawn) > 1000:
                assert 0.17 < sum(drawn) / len(drawn) < 0.33


def test_the_same_seed_gives_the_same_text_and_another_seed_another():
    first, again, other = (prose.prose(random.Random(seed), 5) for seed in (1, 1, 2))
    assert first == again != other


def test_the_split_of_the_names_never_moves():
    assert [prose.is_held_out(name) for name in ("Velmora", "Kelwenthus", "Zanna", "Calza")] == [
        False,
        True,
        True,
        True,
    ]
