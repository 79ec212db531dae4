"""Seeds: the same on every machine, different for every key."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pytest_llmprobe.case import Case, RawPrompt
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.models.registry import REGISTRY
from pytest_llmprobe.models.token_counter import TokenCounter
from pytest_llmprobe.suite import ESTIMATED, MARGIN, AnswerRoom, Suite, seed_of

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


@pytest.mark.parametrize("counter", ["reference", "smollm2"], indirect=True)
def test_room_is_counted_in_the_models_own_tokens(counter):
    suite = Suite(counter=counter)
    assert MARGIN >= 48
    said = counter.count(RawPrompt(TEXT))
    assert suite.room(TEXT) == said + MARGIN
    assert suite.room(TEXT, "", TEXT, margin=0) == 2 * said


def test_room_without_a_tokenizer_is_enough_for_any(smollm2_spec):
    specs = (REGISTRY["reference"], smollm2_spec)
    readers = [Tokenizer.from_file(str(spec.folder / "tokenizer.json")) for spec in specs]

    @settings(deadline=None, max_examples=300)
    @given(st.text(min_size=1, max_size=60))
    def check(text):
        for reader in readers:
            counted = len(reader.encode(text, add_special_tokens=False).ids)
            assert counted <= Suite().room(text, margin=0)

    check()
    assert Suite().said() == []


def question(rng):
    number = rng.randint(10, 99)
    return f"Twice {number} is:", str(2 * number)


def test_a_model_that_continues_texts_sees_a_solved_example_and_ends_with_the_line():
    case = Case("g/a", "Twice 7 is:", "14")
    assert Suite().with_examples(case, question) == case
    shown = Suite(chats=False).with_examples(case, question)
    example, rest = shown.prompt.split("\n\n")
    asked, answer = example.split(": ")
    assert int(answer) == 2 * int(asked.split()[1])
    assert (rest, shown.stop) == (case.prompt, ("\n",))
    assert Suite(chats=False).with_examples(case, question) == shown
    neighbour = Suite(chats=False).with_examples(Case("g/b", "Twice 8 is:"), question)
    assert neighbour.prompt.startswith(example)
    other = Suite(chats=False, seed=1).with_examples(case, question)
    assert not other.prompt.startswith(example)


def test_the_user_says_how_many_examples_there_are():
    case = Case("a", "Twice 7 is:", "14", stop=["!"])
    none = Suite(chats=False, few_shot=0).with_examples(case, question)
    assert (none.prompt, none.stop) == (case.prompt, ("!", "\n"))
    three = Suite(few_shot=3).with_examples(case, question)
    assert three.prompt.count("Twice") == 4
    assert three.stop == ("!",)
    assert len(set(three.prompt.split("\n\n"))) == 4
    with pytest.raises(CasesError, match="case 'a': only a text has room for examples"):
        Suite().with_examples(Case("a", [{"role": "user", "content": "?"}]), question)


def test_a_model_continues_texts_if_it_has_no_template_or_is_served_so():
    assert not Suite(counter=TokenCounter(REGISTRY["reference"])).continues
    assert Suite(counter=TokenCounter(REGISTRY["reference"]), chats=False).continues
    assert not Suite().continues


def test_the_user_replaces_the_room_or_changes_it_by_a_factor():
    assert AnswerRoom().of(7) == 7
    assert AnswerRoom(200).of(7) == 200
    assert [AnswerRoom(factor=f).of(7) for f in (2, 0.5, 0.01)] == [14, 4, 1]
    assert list(map(str, (AnswerRoom(), AnswerRoom(9), AnswerRoom(factor=0.5)))) == [
        "x1",
        "9",
        "x0.5",
    ]
