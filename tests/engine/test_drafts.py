"""Guesses: the draft while it is right, then the prompt's own words, and little for nothing."""

import random

import pytest
from architectures import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe import GenerateConfig
from pytest_llmprobe.engine.drafts import ALLOWED, LONGEST, NGRAM, TRIED, Guesser
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.engine.memory import TreeMemory
from pytest_llmprobe.engine.planning import Row

many = settings(deadline=None, max_examples=200)
texts = st.lists(st.integers(0, 2), max_size=30)
mosts = st.integers(0, 40)


def looked_up(text):
    """What followed the last earlier occurrence of the last two tokens, over and over."""
    for end in range(len(text) - 1, NGRAM - 1, -1):
        if text[end - NGRAM : end] == text[-NGRAM:]:
            return text[end:] * 20
    return []


class Answer:
    """What a decode loop says with guesses, and what the guesses cost.

    Args:
        prompt: Its prompt.
        model: The next token after a text.
        length: Tokens to say.
        draft: A guess of the answer.
        prefilled: Whether the draft goes with the prompt, as in ``decode``, or is asked for.
    """

    def __init__(self, prompt, model, length, draft=(), prefilled=True):
        guesser = Guesser(prompt, draft)
        self.tokens, self.widths, self.wrong = [], [], 0
        while len(self.tokens) < length:
            room = length - len(self.tokens) - 1
            first = prefilled and not self.tokens
            guesses = list(draft)[: min(room, TRIED)] if first else guesser.next(room)
            assert len(guesses) <= room
            right = 0
            while right < len(guesses) and guesses[right] == model(
                [*prompt, *self.tokens, *guesses[:right]]
            ):
                right += 1
            kept = guesses[:right]
            taken = [*kept, model([*prompt, *self.tokens, *kept])]
            self.tokens += taken
            self.widths.append(len(guesses))
            self.wrong += len(guesses) - right
            guesser.said(taken, len(guesses))


def saying(prompt, answer):
    """A model that says ``answer`` after ``prompt``."""
    return lambda text: answer[len(text) - len(prompt)]


@many
@given(texts, st.lists(st.integers(0, 2), min_size=1, max_size=99), st.integers(0, 70))
def test_a_right_draft_is_offered_to_its_end_and_never_beyond_most(prompt, draft, most):
    guesser, said, tried = Guesser(prompt, draft), 0, TRIED
    while said < len(draft):
        guesses = guesser.next(most)
        assert guesses == draft[said : said + min(most, tried)]
        tried *= 2
        taken = [*guesses, *draft[said + len(guesses) :][:1]]
        guesser.said(taken, len(guesses))
        said += len(taken)


@many
@given(texts, st.data())
def test_after_a_wrong_token_the_draft_is_gone(prompt, data):
    draft = data.draw(st.lists(st.integers(10, 12), min_size=1, max_size=12))
    right = data.draw(st.integers(0, len(draft) - 1))
    guesser = Guesser(prompt, draft)
    assert guesser.next(100) == draft
    text = [*prompt, *draft[:right], 9]
    guesser.said([*draft[:right], 9], len(draft))
    for token in (*draft[right:], 0, 1):
        assert guesser.next(100) == looked_up(text)[:2]
        guesser.said([token], 0)
        text.append(token)


@many
@given(texts)
def test_after_the_last_token_of_a_right_draft_the_prompt_is_looked_up(prompt):
    draft = [10, 11, 12]
    guesser = Guesser([*draft, *prompt], draft)
    guesser.said([*draft, 13], len(draft))
    guesser.said([10, 11], 0)
    assert guesser.next(1) == [12]


@many
@given(texts, texts, mosts)
def test_a_look_up_gives_what_followed_the_last_earlier_occurrence(prompt, answer, most):
    guesser, text = Guesser(prompt, ()), list(prompt)
    for token in answer:
        assert guesser.next(most) == looked_up(text)[: min(2, most)]
        guesser.said([token], 0)
        text.append(token)
    assert guesser.next(most) == looked_up(text)[: min(2, most)]


@many
@given(texts, texts, texts, mosts)
def test_a_guess_is_never_longer_than_asked(prompt, draft, answer, most):
    guesser = Guesser(prompt, draft)
    for token in answer:
        guesses = guesser.next(most)
        assert len(guesses) <= most
        guesser.said([token], len(guesses))
    assert guesser.next(0) == []


def test_lengths_double_while_guesses_are_wholly_right():
    prompt = [*range(200), 0, 1]
    answer = Answer(prompt, saying(prompt, range(2, 200)), length=100)
    assert answer.wrong == 0
    assert answer.widths[:6] == [0, 2, 4, 8, LONGEST, LONGEST]


def test_a_guess_that_was_partly_right_begins_small_again():
    guesser = Guesser([*range(50), 0, 1], ())
    guesser.said([2, 3, 4], 2)
    assert guesser.next(100) == [5, 6, 7, 8]
    guesser.said([5, 6, 20, 21], 4)
    assert guesser.next(100) == [22, 23]


@pytest.mark.parametrize("draft", [(), (7, 7, 7)])
def test_a_row_guesses_no_more_after_some_wrong_tokens(draft):
    guesser, wrong = Guesser([1, 2, 3, 1, 2], draft), 0
    if draft:
        guesser.said([1], len(draft))  # a wrong draft is not held against the prompt
        guesser.said([2], 0)
    while guesses := guesser.next(100):
        wrong += len(guesses)
        guesser.said([5], len(guesses))
        guesser.said([1], 0)
        guesser.said([2], 0)
    assert ALLOWED < wrong <= ALLOWED + 2


def test_right_tokens_pay_for_as_many_wrong_ones():
    guesser = Guesser([1, 2, 3, 1, 2], ())
    for round_ in range(20 * ALLOWED):
        guesses = guesser.next(1)
        assert guesses
        guesser.said([*guesses, 5] if round_ % 2 else [6], 1)
        guesser.said([1], 0)
        guesser.said([2], 0)


@many
@given(texts, texts, st.integers(1, 40), st.integers(0, 2**32), st.booleans())
def test_guesses_never_change_what_is_said(prompt, draft, length, seed, prefilled):
    answer = random.Random(seed).choices(range(3), k=length)
    guessed = Answer(prompt, saying(prompt, answer), length, draft, prefilled)
    assert guessed.tokens == answer
    assert len(guessed.widths) <= length


@given(st.lists(st.integers(0, 99), min_size=40, max_size=80, unique=True), st.booleans())
def test_a_model_that_repeats_its_prompt_is_guessed_in_few_passes(prompt, cued):
    start = [*prompt, *prompt[: NGRAM if cued else 0]]
    said = prompt[len(start) - len(prompt) :]
    answer = Answer(start, saying(start, said), len(said))
    assert answer.tokens == said
    assert answer.wrong == 0
    assert len(answer.widths) <= 4 + len(said) // LONGEST + 4


@many
@given(st.integers(0, 2**32), st.sampled_from([0, 100, 1000]))
def test_a_model_that_says_random_tokens_pays_a_tenth_at_most(seed, prompted):
    tokens = random.Random(seed).choices(range(50), k=prompted + 200)
    prompt, said = tokens[:prompted], tokens[prompted:]
    answer = Answer(prompt, saying(prompt, said), len(said))
    assert answer.tokens == said
    assert answer.wrong <= len(said) // 10


@given(texts, st.lists(st.integers(0, 9), min_size=2, max_size=40))
def test_a_right_draft_is_one_pass_and_a_long_one_few(prompt, said):
    answer = Answer(prompt, saying(prompt, said), len(said), draft=said)
    assert answer.wrong == 0
    assert len(answer.widths) == (1 if len(said) <= TRIED + 1 else 2)


@many
@given(st.integers(1, 400), st.data())
def test_a_draft_that_goes_wrong_costs_no_more_than_it_saved(length, data):
    draft = list(range(length))
    right = data.draw(st.integers(0, length - 1))
    said = [*draft[:right], *[-1 - n for n in range(length - right)]]
    answer = Answer([], saying([], said), length, draft)
    assert answer.tokens == said
    assert answer.wrong <= right + TRIED


def test_without_looking_up_the_draft_alone_is_guessed():
    guesser = Guesser([1, 2, 3, 1, 2], [7, 8])
    assert guesser.next(9, look_up=False) == [7, 8]
    guesser.said([7, 8, 1], 2)
    guesser.said([2], 0)
    assert guesser.next(9, look_up=False) == []
    assert guesser.next(9) == [7, 8]


def test_a_row_that_is_ahead_of_others_waits_with_its_look_ups(monkeypatch):
    loaded, own, fed = tiny("llama"), TreeMemory.feed, []
    config, prompts = GenerateConfig(24), ((5, 6, 7) * 4, tuple(range(30, 50)))

    def feed(memory, segments):
        begun = [len(memory._rows[segment.row].prompt_ids) for segment in segments]
        said = [s.start - start for s, start in zip(segments, begun, strict=True)]
        fed.append([(n, len(s.guesses)) for n, s in zip(said, segments, strict=True)])
        logits, at = own(memory, segments), 0
        for segment, start in zip(segments, begun, strict=True):
            if start == len(prompts[0]):  # its row goes on repeating
                for place, token in enumerate(segment.tokens[-segment.scored :]):
                    logits[at + place, 5 + (token - 4) % 3] = 1e3
            at += segment.scored
        return logits

    monkeypatch.setattr(TreeMemory, "feed", feed)
    rows = [Row(number, prompt, config) for number, prompt in enumerate(prompts)]
    FastBackend(loaded).together(rows, lambda _: None, lambda row, answer: None)
    both = [passed for passed in fed[1:] if len(passed) == 2]
    assert any(guesses for passed in both for _, guesses in passed)
    assert any(one[0] != other[0] for one, other in both)
    for passed in both:
        least = min(said for said, _ in passed)
        assert all(said == least for said, guesses in passed if guesses)
