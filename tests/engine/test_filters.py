"""Filters of ours against their definitions, number by number; penalties against transformers."""

import math
from itertools import pairwise

import pytest
import torch
from architectures import END, PAD, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fast_backend import ALONE, SHARED
from transformers import EtaLogitsWarper, GenerationConfig

from pytest_llmprobe import Engine, GenerateConfig, Request
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.engine.filters import Eta, TailFree, TopA
from pytest_llmprobe.engine.sampling import sampled
from pytest_llmprobe.engine.transformers_backend import TransformersBackend
from pytest_llmprobe.errors import SettingsError

few = settings(deadline=None, max_examples=200)
logits = st.lists(  # in steps that tell apart, and that float32 holds as they are
    st.integers(-512, 512).map(lambda number: number / 64), min_size=3, max_size=12, unique=True
)
shares = st.floats(0.05, 0.99)


def probabilities(scores):
    largest = max(scores)
    weights = [math.exp(score - largest) for score in scores]
    return [weight / sum(weights) for weight in weights]


def kept(processor, scores):
    (row,) = processor(torch.zeros(1, 1, dtype=torch.long), torch.tensor([scores])).tolist()
    assert all(new in (old, -math.inf) for old, new in zip(scores, row, strict=True))
    return {place for place, score in enumerate(row) if score > -math.inf}


def tail_free(scores, z):
    """The definition, in plain Python."""
    p = probabilities(scores)
    order = sorted(range(len(p)), key=lambda place: -scores[place])
    p = [p[place] for place in order]
    first = [b - a for a, b in pairwise(p)]
    second = [abs(b - a) for a, b in pairwise(first)]
    stays, seen = [order[0]], 0.0
    for place, curvature in zip(order[1:], second, strict=False):
        seen += curvature
        if abs(seen / sum(second) - z) < 1e-4:
            return None  # too close for float32 to tell
        if seen / sum(second) > z:
            return set(stays)
        stays.append(place)
    return {*stays, order[-1]}


@few
@given(logits, shares)
def test_tail_free_sampling_is_its_definition(scores, z):
    expected = tail_free(scores, z)
    if expected is not None:
        assert kept(TailFree(z), scores) == expected


@few
@given(logits, shares)
def test_top_a_is_its_definition(scores, a):
    p = probabilities(scores)
    least = a * max(p) ** 2
    expected = {place for place, likely in enumerate(p) if likely >= least}
    if all(abs(likely - least) > 1e-5 for likely in p):
        assert kept(TopA(a), scores) == expected


@pytest.mark.parametrize("processor", [TailFree(0.05), TopA(1.0)])
@pytest.mark.parametrize("scores", [[0.0], [1.0, 0.0], [2.0] * 5, [3.0, 3.0, -math.inf, -9.0]])
def test_the_likeliest_always_stays(processor, scores):
    assert scores.index(max(scores)) in kept(processor, scores)


@few
@given(logits, st.floats(1e-4, 0.9))
def test_eta_sampling_is_that_of_transformers(scores, epsilon):
    p = probabilities(scores)
    entropy = -sum(each * math.log(each) for each in p if each)
    least = min(epsilon, math.sqrt(epsilon) * math.exp(-entropy))
    if all(abs(each - least) > 1e-6 for each in p):  # else float32 cannot tell
        assert kept(Eta(epsilon), scores) == kept(EtaLogitsWarper(epsilon), scores)


def test_where_all_are_alike_tail_free_keeps_all():
    assert kept(TailFree(0.2), [1.0] * 7) == set(range(7))


EPSILON, ETA = {"epsilon_cutoff": 0.1}, {"eta_cutoff": 0.5}


def drawn(config):
    scores = torch.arange(10.0).expand(500, 10) / 2
    rows = range(500)
    return set(sampled(scores, [config] * 500, rows, [1] * 500, [[]] * 500).argmax(-1).tolist())


def test_each_filter_changes_what_is_drawn():
    free = drawn(GenerateConfig(temperature=1.0))
    for how in ({"tfs": 0.5}, {"top_a": 0.5}, {"typical_p": 0.2}, EPSILON, ETA):
        assert drawn(GenerateConfig(temperature=1.0, **how)) < free


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("typical_p", 0),
        ("typical_p", 1.5),
        ("tfs", 0),
        ("top_a", -0.1),
        ("top_a", 1.1),
        ("repetition_penalty", 0),
        ("repetition_penalty", math.inf),
        ("no_repeat_ngram_size", -1),
        ("no_repeat_ngram_size", 1.5),
    ],
)
def test_a_value_out_of_range_is_an_error_that_names_it(name, value):
    with pytest.raises(SettingsError, match=f"{name}={value}: it must be"):
        GenerateConfig(**{name: value})


PENALTIES = [
    {"repetition_penalty": 1.8},
    {"no_repeat_ngram_size": 2},
    {"repetition_penalty": 0.7, "no_repeat_ngram_size": 3},
]
PROMPTS = [*SHARED[:4], *ALONE[:3]]


def plain(model, prompt, penalty):
    ids = torch.tensor([FastBackend(model).encode(prompt)])
    output = model.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        generation_config=GenerationConfig(
            max_new_tokens=12, do_sample=False, eos_token_id=[END], pad_token_id=PAD, **penalty
        ),
    )
    return tuple(output[0, ids.shape[1] :].tolist())


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral", "mamba"])
def test_penalties_on_every_path_are_those_of_generate_with_one_prompt(architecture, penalty):
    model = tiny(architecture)
    expected = [plain(model, prompt, penalty) for prompt in PROMPTS]
    if architecture != "mamba":  # it says nothing twice
        assert expected != [plain(model, prompt, {}) for prompt in PROMPTS]
    config = GenerateConfig(max_new_tokens=12, **penalty)
    right = [Request(p, config, 0, ids) for p, ids in zip(PROMPTS, expected, strict=True)]
    wrong = [Request(p, config, 0, ids[1:]) for p, ids in zip(PROMPTS, expected, strict=True)]
    for engine, requests in (
        (Engine(model), right),
        (Engine(model), wrong),
        (Engine(model, drafts=False), right),
        (Engine(model, batch_size=1), right),
        (Engine(TransformersBackend(model)), right),
    ):
        assert [c.token_ids for c in engine.generate(requests)] == expected


def test_with_penalties_a_sampled_row_depends_on_its_seed_only():
    model = tiny("llama")
    config = GenerateConfig(
        max_new_tokens=8, temperature=0.9, tfs=0.9, top_a=0.1, repetition_penalty=1.3
    )
    requests = [Request(prompt, config, seed) for seed, prompt in enumerate(PROMPTS)]
    together = [c.token_ids for c in Engine(model).generate(requests)]
    assert together == [c.token_ids for c in Engine(model, batch_size=1).generate(requests)]
    assert (
        together
        == [c.token_ids for c in Engine(TransformersBackend(model)).generate(requests[::-1])][::-1]
    )
