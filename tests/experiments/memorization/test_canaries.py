"""Canaries: uniform, different, reproducible; exposure against its definition."""

import json
import math
import random
from collections import Counter
from dataclasses import asdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.experiments.memorization.canaries import (
    Canary,
    SecretSpace,
    alternatives,
    canaries,
    digits,
    exposure,
    read_canaries,
    words,
)

many = settings(deadline=None, max_examples=80)
scores = st.floats(-50, 50) | st.sampled_from([0.0, 1.0])


# Spaces


def test_a_space_holds_every_sequence_of_its_symbols_once():
    space = SecretSpace(("red", "blue", "green"), 3, " ")
    secrets = [space.secret(number) for number in range(space.size)]
    assert secrets == [" ".join(s) for s in product(space.symbols, repeat=3)]
    assert digits(2).secret(7) == "07"
    assert digits(9).size == 10**9
    assert len(words(4).secret(0).split()) == 4


@pytest.mark.parametrize(
    ("symbols", "length", "separator"),
    [
        (("a", "ab"), 2, ""),  # a + ab reads like aa + b would
        (("a", "a"), 2, ""),
        (("a b", "c"), 2, " "),
        (("", "c"), 2, " "),
        (("a",), 3, ""),
        ((), 3, ""),
        (("a", "b"), 0, ""),
        (("a", "b"), 63, ""),
    ],
)
def test_a_space_where_secrets_read_alike_or_that_has_no_size_is_refused(
    symbols, length, separator
):
    with pytest.raises(SettingsError):
        SecretSpace(symbols, length, separator)


# Canaries


def test_canaries_have_their_own_secret_and_prefix():
    made = canaries(200)
    assert len({c.secret for c in made}) == len({c.prefix for c in made}) == 200
    for canary in made:
        assert canary.text == f"{canary.prefix} {canary.secret}."
        assert len(canary.secret) == 9
        assert canary.secret.isdecimal()


def test_a_seed_gives_the_same_canaries_and_another_one_others():
    assert canaries(20, seed=3) == canaries(20, seed=3)
    assert not {c.secret for c in canaries(20, seed=3)} & {c.secret for c in canaries(20, seed=4)}


def test_secrets_are_uniform_over_the_space():
    space = SecretSpace(("x", "y", "z"), 2)
    drawn = Counter(canaries(1, seed, space)[0].secret for seed in range(1800))
    # 200 of each expected, with a standard deviation of 13.3: 5 of them at most
    assert len(drawn) == 9
    assert all(abs(n - 200) < 67 for n in drawn.values())


def test_the_whole_space_may_be_planted_and_no_more():
    space = digits(1)
    assert {c.secret for c in canaries(10, 0, space)} == set("0123456789")
    with pytest.raises(SettingsError, match="11 canaries"):
        canaries(11, 0, space)


def test_a_template_of_ones_own():
    (canary,) = canaries(1, 0, words(2), "Remember {{x}}: {secret}, said Bob.")
    assert canary.prefix == "Remember {{x}}:"
    assert canary.text == f"Remember {{{{x}}}}: {canary.secret}, said Bob."


@pytest.mark.parametrize(
    "template",
    ["no secret", "{secret} first", "  {secret}", "a {secret} b {secret}", "a {secret} b {id}"],
)
def test_a_template_that_cannot_be_asked_for_is_refused(template):
    with pytest.raises(SettingsError, match="the template"):
        canaries(1, template=template)


def test_a_canary_is_three_fields_of_json():
    (canary,) = canaries(1)
    line = json.loads(json.dumps(asdict(canary)))
    assert line.keys() == {"text", "prefix", "secret"}
    assert Canary(**line) == canary
    with pytest.raises(CasesError, match="is no canary"):
        Canary(**line | {"secret": "0"})


# Alternatives


@given(st.integers(0, 8), st.integers(0, 5))
@many
def test_alternatives_are_different_secrets_of_the_space_in_the_same_sentence(count, seed):
    space = SecretSpace(("x", "y", "z"), 2)
    (canary,) = canaries(1, seed, space)
    others = alternatives(canary, space, count, seed)
    assert len({c.secret for c in others} - {canary.secret}) == count
    assert {c.prefix for c in others} <= {canary.prefix}
    assert all(c.text == f"{c.prefix} {c.secret}." for c in others)


def test_every_alternative_is_equally_likely():
    space = SecretSpace(("x", "y", "z"), 2)
    (canary,) = canaries(1, 0, space)
    drawn = Counter(alternatives(canary, space, 1, seed)[0].secret for seed in range(1600))
    assert len(drawn) == 8
    assert all(abs(n - 200) < 67 for n in drawn.values())


def test_more_alternatives_than_there_are_is_refused():
    (canary,) = canaries(1, 0, digits(1))
    with pytest.raises(SettingsError, match="has 9 other secrets"):
        alternatives(canary, digits(1), 10)


# Exposure


@many
@given(scores, st.lists(scores, min_size=1, max_size=30))
def test_exposure_of_a_whole_space_is_its_definition(canary, others):
    space = len(others) + 1
    ranked = sorted([*others, canary])
    rank = max(place for place, score in enumerate(ranked, 1) if score == canary)
    measured = exposure(canary, others, space)
    assert measured.exact
    assert measured.rank == rank
    assert measured.bits == pytest.approx(math.log2(space) - math.log2(rank))
    assert 0 <= measured.bits <= measured.largest == math.log2(space)
    assert measured.chance == pytest.approx(2**-measured.bits)


def test_the_best_the_worst_and_the_middle():
    others = [float(n) for n in range(1, 1024)]
    assert exposure(0.0, others, 1024).bits == 10
    assert exposure(2000.0, others, 1024).bits == 0
    assert exposure(511.5, others, 1024).bits == 1


def test_numbers_of_numpy_give_built_in_ones():
    measured = exposure(np.float32(1.5), list(np.array([1.0, 2.0, 3.0])), 4)
    assert asdict(measured) == {"bits": 1.0, "rank": 2, "candidates": 4, "space": 4}
    assert json.loads(json.dumps(asdict(measured))) == asdict(measured)


def test_a_sample_cannot_show_more_than_it_has():
    measured = exposure(0.0, [1.0] * 255, 10**9)
    assert (measured.bits, measured.largest, measured.exact) == (8, 8, False)


def test_a_sample_estimates_the_exposure_in_the_space():
    rng = random.Random(0)
    everything = list(range(1, 10_000))
    whole = exposure(99.5, everything, 10_000).bits
    sampled = [exposure(99.5, rng.sample(everything, 2000), 10_000).bits for _ in range(50)]
    assert sum(sampled) / 50 == pytest.approx(whole, abs=0.1)


def test_a_canary_that_was_never_planted_is_exposed_by_chance_as_often_as_said():
    rng = random.Random(1)
    measured = [
        exposure(rng.random(), [rng.random() for _ in range(63)], 10**9) for _ in range(2000)
    ]
    for rank in (1, 4, 16, 32):
        share = sum(m.rank <= rank for m in measured) / 2000
        assert share == pytest.approx(rank / 64, abs=5 * math.sqrt(rank / 64 / 2000))


@pytest.mark.parametrize(
    ("canary", "others", "space"),
    [(0.0, [], 10), (0.0, [1.0] * 10, 10), (math.nan, [1.0], 10), (0.0, [1.0, math.nan], 10)],
)
def test_what_has_no_rank_is_refused(canary, others, space):
    with pytest.raises(CasesError):
        exposure(canary, others, space)


def test_canaries_are_read_from_rows():
    made = canaries(3)
    rows = [(f"line {number}", asdict(canary)) for number, canary in enumerate(made)]
    assert list(read_canaries(rows)) == made


@pytest.mark.parametrize(
    "row", [{"text": "a"}, {"text": "a b", "prefix": "a", "secret": 7}, {"text": 1}, {}]
)
def test_a_row_that_is_no_canary_is_named(row):
    with pytest.raises(CasesError, match=r"line 4: a canary has the fields"):
        list(read_canaries([("line 4", row)]))
    with pytest.raises(CasesError, match=r"line 5: .* is no canary"):
        list(read_canaries([("line 5", {"text": "a b", "prefix": "c", "secret": "b"})]))
