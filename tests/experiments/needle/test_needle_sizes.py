"""Sizes of haystacks: token budgets hold exactly, and what is left out is said."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from runpy import run_path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.case import Case, prompt_text
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.models.registry import REGISTRY
from pytest_llmprobe.models.token_counter import TokenCounter
from pytest_llmprobe.suite import ESTIMATED, AnswerRoom, Suite

EVALS = {
    "single_needle": "single_needles",
    "multiple_needles": "multiple_needles",
    "conditional_needles": "conditional_needles",
    "threading": "threads",
    "multi_threading": "multi_threads",
    "branched_threading": "branched_threads",
}
PAPER = [1.2, 2.5, 5, 10, 20, 32, 64, 128, 180, 250, 500, 630]  # thousands of tokens
REFERENCE = TokenCounter(REGISTRY["reference"])
every_eval = pytest.mark.parametrize("name", EVALS)


@dataclass(frozen=True)
class Weighing:
    """Counts characters by weight, in place of a tokenizer."""

    context_length: int | None = None
    weights: Mapping[str, int] = field(default_factory=dict, compare=False)
    rest: int = 1
    has_template = True

    def count(self, prompt):
        prompt = prompt_text(prompt)
        common = sum(prompt.count(letter) * (w - self.rest) for letter, w in self.weights.items())
        return self.rest * len(prompt) + common


def evaluation(name):
    path = Path(__file__).parents[3] / "evals" / "needle" / f"test_{name}.py"
    names = run_path(str(path))
    return names[EVALS[name]], names["SIZES"], names[f"test_{name}"]


def full(counter, trials=1):
    return Suite("full", trials=trials, counter=counter)


@every_eval
def test_the_full_profile_has_the_lengths_of_the_paper(name):
    _, sizes, _ = evaluation(name)
    assert sizes["full"] == needle.tokens(*(int(1000 * length) for length in PAPER))
    assert {type(size) for profile in ("smoke", "ci") for size in sizes[profile]} == {needle.Pairs}


@every_eval
def test_budgets_hold_exactly_on_the_reference_tokenizer(name, monkeypatch):
    cases, sizes, _ = evaluation(name)
    fit, checked = needle.fit, []

    def taken(case):
        return REFERENCE.count(case.prompt) + case.max_new_tokens

    def checked_fit(size, build, suite):
        fitted = fit(size, build, suite)
        if fitted:
            n = fitted[0].metadata["pairs"]
            assert [case.prompt for case in fitted] == [case.prompt for case in build(n)]
            assert all(len(needle.read_haystack(case.prompt)) == n for case in fitted)
            most, next_most = (max(map(taken, build(pairs))) for pairs in (n, n + 1))
            assert most <= size.count < next_most
            checked.extend(fitted)
        return fitted

    monkeypatch.setattr(needle, "fit", checked_fit)
    sizes["smoke"] = needle.tokens(600, 1_000)
    monkeypatch.setitem(vars(REFERENCE), "context_length", 10_000)  # whatever the model's is
    suite = Suite("smoke", trials=1, counter=REFERENCE)
    built = list(cases(suite))
    assert [case.id for case in built] == [case.id for case in checked]
    assert {case.metadata["size"] for case in built} == {600, 1_000}
    assert all(case.metadata["tokens"] == case.metadata["size"] for case in built)
    assert all(case.id.startswith(f"{case.metadata['size']}-tokens-") for case in built)
    assert all(needle.solve(case.prompt) == case.target for case in built)
    assert suite.said() == []


@every_eval
def test_sizes_beyond_the_context_are_left_out_and_said(name):
    cases, sizes, _ = evaluation(name)
    sizes["full"] = needle.tokens(1_200, 2_500, 5_000, 10_000)
    suite = full(Weighing(4_096, rest=1))
    assert {case.metadata["size"] for case in cases(suite)} == {1_200, 2_500}
    beyond = "left out 5000-tokens, 10000-tokens: the model's context is 4,096 tokens"
    assert [line for line in suite.said() if "left out cells" not in line] == [beyond]


def test_a_budget_holds_the_room_that_the_user_gives():
    cases, sizes, _ = evaluation("single_needle")
    sizes["full"] = needle.tokens(2_000)

    def pairs(room):
        suite = full(Weighing(2_000))
        return next(iter(cases(replace(suite, answer_room=room)))).metadata["pairs"]

    own = pairs(AnswerRoom())
    assert pairs(AnswerRoom(factor=1)) == own
    assert pairs(AnswerRoom(factor=5)) < pairs(AnswerRoom(factor=2)) < own < pairs(AnswerRoom(20))
    suite = full(Weighing(2_000))
    assert not list(cases(replace(suite, answer_room=AnswerRoom(2_000))))
    assert "left out cells of 2000-tokens: question and answer leave no room" in suite.said()[0]


def build(n):
    """A haystack whose last pair is asked for; the later pairs are heavier."""
    text = "".join(chr(ord("a") + i % 26) * 3 + " " for i in range(n))
    return [Case("a", text + "key a?"), Case("b", text + "key bb?")]


WEIGHTS = st.dictionaries(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), st.integers(0, 9))


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 3_000), st.integers(0, 60), WEIGHTS, st.integers(1, 4))
def test_the_largest_number_of_pairs_that_fits_is_found(budget, answer, weights, rest):
    counter = Weighing(None, weights, rest)
    fitted = needle.fit(needle.Tokens(budget), build, Suite(counter=counter), answer)

    def most(n):
        return max(counter.count(case.prompt) for case in build(n)) + answer

    n = fitted[0].metadata["pairs"] if fitted else 0
    assert n == 0 or most(n) <= budget
    assert most(n + 1) > budget


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 2_000), st.lists(st.integers(-30, 30), min_size=50, max_size=50))
def test_prompts_that_do_not_grow_evenly_fit_too(budget, noise):
    def uneven(n):
        return [Case("a", "a" * max(1, 40 * n + noise[n % 50]))] if n > 2 else []

    fitted = needle.fit(needle.Tokens(budget), uneven, Suite(counter=Weighing()), 10)
    if fitted:
        assert len(fitted[0].prompt) + 10 <= budget
        assert len(uneven(fitted[0].metadata["pairs"] + 1)[0].prompt) + 10 > budget
    else:
        assert len(uneven(3)[0].prompt) + 10 > budget


def test_a_cell_without_room_is_left_out_and_said():
    suite = Suite(counter=Weighing())
    assert needle.fit(needle.Tokens(100), lambda n: build(n) if n > 50 else [], suite, 10) == []
    assert suite.said() == [
        "left out cells of 100-tokens: question and answer leave no room for their pairs"
    ]


def test_pairs_and_characters_need_no_tokenizer():
    suite = Suite()
    (one, two) = needle.fit(needle.Pairs(7), build, suite, 10)
    assert one.metadata == two.metadata == {"size": 7}
    (one, _) = needle.fit(needle.Characters(2_000), build, suite, 10)
    assert one.metadata == {"size": 2_000, "characters": 2_000, "pairs": 25}
    assert needle.fit(needle.Characters(79), build, suite, 10) == []
    assert list(map(str, (needle.Pairs(5), needle.Characters(400), needle.Tokens(1_200)))) == [
        "5-pairs",
        "400-characters",
        "1200-tokens",
    ]
    assert suite.said() == []


def test_without_a_tokenizer_four_characters_are_a_token_and_the_report_says_so():
    suite = Suite()
    (case, _) = needle.fit(needle.Tokens(100), build, suite, 20)
    assert len(case.prompt) <= 4 * 80 < len(build(case.metadata["pairs"] + 1)[1].prompt)
    assert suite.said() == [ESTIMATED]
    assert suite.context_length is None
    assert suite.tokens([{"role": "user", "content": "abcde"}]) == 2
