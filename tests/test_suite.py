"""Seeds: the same on every machine, different for every key."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.case import RawPrompt
from pytest_llmprobe.models.registry import REGISTRY
from pytest_llmprobe.models.token_counter import TokenCounter
from pytest_llmprobe.suite import ESTIMATED, Suite, seed_of

PARTS = st.none() | st.integers() | st.text() | st.floats(allow_nan=False)


def test_a_seed_is_the_first_63_bits_of_the_sha256_of_its_key_as_json():
    digest = hashlib.sha256(b'[0, "threading", "5-pairs"]').hexdigest()
    assert seed_of(0, "threading", "5-pairs") == int(digest[:16], 16) // 2


@settings(deadline=None, max_examples=200)
@given(st.lists(PARTS, max_size=4))
def test_a_seed_fits_into_63_bits(key):
    assert 0 <= seed_of(*key) < 2**63


@settings(deadline=None, max_examples=200)
@given(st.lists(PARTS, max_size=4), st.lists(PARTS, max_size=4))
def test_different_keys_have_different_seeds(one, other):
    same = [(type(part), part) for part in one] == [(type(part), part) for part in other]
    if "-0.0" not in map(str, [*one, *other]):  # equal to 0.0, and still another key
        assert (seed_of(*one) == seed_of(*other)) == same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        (("ab",), ("a", "b")),
        ((1,), ("1",)),
        ((1,), (1.0,)),
        ((None,), ("null",)),
        ((), ("",)),
        (("a, b",), ("a", "b")),
    ],
)
def test_parts_of_a_key_do_not_run_together(one, other):
    assert seed_of(*one) != seed_of(*other)


def test_a_suite_gives_the_same_numbers_for_the_same_key_whatever_was_drawn_before():
    suite = Suite(seed=3)
    first = suite.random("needle", 1).random()
    suite.random("needle", 2).random()
    random.seed(0)
    assert suite.random("needle", 1).random() == first


def test_seed_and_key_both_change_the_numbers():
    drawn = {
        Suite(seed=seed).random(experiment, trial).random()
        for seed in range(3)
        for experiment in ("a", "b")
        for trial in range(3)
    }
    assert len(drawn) == 18


def test_profile_and_trials_do_not_change_the_numbers_of_a_case():
    assert Suite("smoke", 1, 2).random("x").random() == Suite("full", 1).random("x").random()


TEXT = "The brown dog of Anna sold a lamp in Rome. The café was closed all week."


def test_a_text_is_split_between_the_tokens_of_the_model():
    counter = TokenCounter(REGISTRY["reference"])
    suite = Suite(counter=counter)
    ids = counter.ids(RawPrompt(TEXT))
    for prefix, suffix in ((5, 3), (len(ids) // 2, 100), (1, 1)):
        prompt, after = suite.split(TEXT, prefix, suffix)
        assert list(prompt.ids) == ids[:prefix]
        assert prompt.text == counter.decode(ids[:prefix])
        assert after == counter.decode(ids[prefix : prefix + suffix])
        assert TEXT.startswith(prompt.text + after)


def test_a_short_text_is_split_in_half():
    suite = Suite(counter=TokenCounter(REGISTRY["reference"]))
    prompt, after = suite.split(TEXT, 1000, 1000)
    ids = suite.counter.ids(RawPrompt(TEXT))
    assert len(prompt.ids) == (len(ids) + 1) // 2
    assert prompt.text + after == TEXT


def test_without_a_tokenizer_four_characters_are_a_token_and_the_report_says_so():
    suite = Suite()
    assert suite.split("abcdefghijklmnop", 1, 2) == (RawPrompt("abcd"), "efghijkl")
    assert suite.split("abc", 9, 9) == (RawPrompt("ab"), "c")
    assert suite.said() == [ESTIMATED]
