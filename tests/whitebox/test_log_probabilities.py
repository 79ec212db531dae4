"""What a text gets in batches and chunks is what it gets alone, in one pass, in float64."""

import copy
from dataclasses import replace
from functools import cache, wraps
from importlib.util import module_from_spec, spec_from_file_location
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pytest_llmprobe.errors import (
    CasesError,
    InvalidLogitsError,
    PromptTooLongError,
    RequestError,
    SettingsError,
)
from pytest_llmprobe.whitebox import log_probabilities as module
from pytest_llmprobe.whitebox.log_probabilities import log_probabilities
from pytest_llmprobe.whitebox.spans import SpannedPrompt, TokenSpan
from pytest_llmprobe.whitebox.steering import steer

spec = spec_from_file_location("tiny_models", Path(__file__).parents[1] / "engine/architectures.py")
tiny_models = module_from_spec(spec)
spec.loader.exec_module(tiny_models)
ARCHITECTURES, tiny = tiny_models.ARCHITECTURES, tiny_models.tiny

FIELDS = ("log_probability", "mean", "variance")
WORDS = 2048
BOUND = 3e-6  # measured: 1.8e-6 at most; other processors sum in another order
# Their own float32 logits are as far from float64 as that, in plain PyTorch; measured half of it.
COARSE = {"mamba": 6e-5, "mamba2": 3e-4}


def text(length, seed=0):
    return torch.randint(WORDS, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


TEXTS = [text(length, length) for length in (9, 1, 33, 21, 2, 40, 5, 61)]


@torch.no_grad()
def naive(model, ids, unfed=0):
    """One text alone, all logits, in float64; its last token may go unfed, as nothing follows."""
    fed = ids[: len(ids) - unfed]
    model = tiny_models.unturned(model)
    log_p = model(torch.tensor([fed])).logits[0, : len(ids) - 1].double().log_softmax(-1)
    p, following = log_p.exp(), torch.tensor(ids[1:], dtype=torch.long)
    mean = (p * log_p).sum(-1)
    variance = (p * (log_p - mean[:, None]) ** 2).sum(-1)
    found = log_p.gather(-1, following[:, None]).squeeze(-1)
    return [array.numpy() for array in (found, mean, variance)]


@cache
def expected(architecture):
    """Of the weights in float64."""
    model = copy.deepcopy(tiny(architecture).model).double()
    return [naive(model, ids) for ids in TEXTS]


def distance(found, arrays):
    for field, array in zip(FIELDS, arrays, strict=True):
        assert getattr(found, field).shape == array.shape
        assert getattr(found, field).dtype == np.float64
    pairs = zip(FIELDS, arrays, strict=True)
    return max(np.abs(getattr(found, field) - array).max(initial=0) for field, array in pairs)


def watch(model, monkeypatch, change=lambda inputs, output: None):
    """The shape of the ids of each forward pass to come; ``change`` may spoil its logits."""
    forward, shapes = model.forward, []

    @wraps(forward)
    def watched(input_ids, **inputs):
        shapes.append(tuple(input_ids.shape))
        output = forward(input_ids, **inputs)
        change(input_ids, output)
        return output

    monkeypatch.setattr(model, "forward", watched)
    return shapes


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("token_budget", "logits"),
    [(4096, 2**23), (7, 2**23), (4096, 24 * WORDS)],
    ids=["batches", "chunks of 7", "few logits"],
)
def test_it_equals_float64_text_by_text(architecture, token_budget, logits, monkeypatch):
    monkeypatch.setattr(module, "CPU_LOGITS", logits)
    found = log_probabilities(tiny(architecture), TEXTS, token_budget=token_budget)
    bound = COARSE.get(architecture, BOUND)
    for one, arrays in zip(found, expected(architecture), strict=True):
        assert distance(one, arrays) <= bound


@pytest.mark.parametrize("architecture", COARSE)
def test_a_coarse_architecture_is_coarse_by_itself(architecture):
    loaded = tiny(architecture)
    alone = [naive(loaded.model, ids) for ids in TEXTS]
    exact = np.concatenate([np.concatenate(arrays) for arrays in expected(architecture)])
    own = np.abs(np.concatenate([np.concatenate(arrays) for arrays in alone]) - exact).max()
    assert BOUND < own < COARSE[architecture]
    for ids, arrays in zip(TEXTS, alone, strict=True):
        (found,) = log_probabilities(loaded, [ids])
        assert distance(found, arrays) < own / 2


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(1, 50), max_size=12), st.integers(1, 200), st.integers(1, 200), st.data()
)
def test_neither_order_nor_company_nor_budget_matters(lengths, token_budget, tokens, data):
    loaded = tiny("llama")
    texts = [text(length, data.draw(st.integers(0, 3))) for length in lengths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CPU_LOGITS", tokens * WORDS)
        shapes = watch(loaded.model, patch)
        found = log_probabilities(loaded, texts, token_budget=token_budget)
    assert all(rows * width <= min(token_budget, tokens) for rows, width in shapes)
    for ids, one in zip(texts, found, strict=True):
        assert distance(one, naive(loaded.model, ids)) <= 2 * BOUND


def test_short_texts_share_passes_and_long_ones_have_several(monkeypatch):
    loaded = tiny("llama")
    shapes = watch(loaded.model, monkeypatch)
    lengths = (10, 101, 9, 10, 8, 2)
    log_probabilities(loaded, [text(n, seed) for seed, n in enumerate(lengths)], token_budget=30)
    assert shapes == [(1, 25)] * 4 + [(3, 9), (2, 7)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_texts_begin_with_alike_is_read_once(architecture, monkeypatch):
    loaded, begin = tiny(architecture), text(20)
    texts = [begin + text(n, n) for n in (7, 2, 5, 7)] + [begin[:12], begin]
    exact = [naive(copy.deepcopy(loaded.model).double(), ids) for ids in texts]
    shapes = watch(loaded.model, monkeypatch)
    found = log_probabilities(loaded, texts)
    able = loaded.capabilities
    own_cache = "cache_params" in signature(type(loaded.model).forward).parameters
    if able.cached_continuation and able.left_padding and not own_cache:
        assert shapes == [(1, 20), (6, 6)]
    bound = COARSE.get(architecture, BOUND)
    assert all(distance(one, arrays) <= bound for one, arrays in zip(found, exact, strict=True))


@pytest.mark.parametrize("budget", [4096, 40])
@pytest.mark.parametrize("logits", [2**23, 40 * WORDS])
@pytest.mark.parametrize("architecture", tiny_models.TURNED)
def test_a_text_that_is_rotated_by_its_length_turns_no_other(
    architecture, logits, budget, monkeypatch
):
    """Alike at first up to below the limit of 96 tokens, and then beyond it or not."""
    monkeypatch.setattr(module, "CPU_LOGITS", logits)
    loaded, begin = tiny(architecture), text(60)
    lengths = (61, 63, 38, 37, 36, 5)  # with 37 it has 96 before its last, which is not fed
    texts = [begin + text(n, n) for n in lengths] + [text(30, 1), text(97, 2), text(98, 3)]
    found = log_probabilities(loaded, texts, token_budget=budget)
    for ids, one in zip(texts, found, strict=True):
        assert distance(one, naive(loaded.model, ids, unfed=1)) <= 2 * BOUND
    turned, alone = (naive(loaded.model, ids)[0] for ids in (texts[0], begin))
    assert np.abs(turned[:59] - alone).max() > 0.1


def test_within_steering_each_row_has_its_own():
    loaded, begin = tiny("llama"), text(30)
    texts = [begin + text(3, seed) for seed in (1, 2)]
    steered = [SpannedPrompt(tuple(ids[:-1]), (TokenSpan((4, 5, 6)),)) for ids in texts]
    with steer(loaded, steered, delta=3.0):
        found = log_probabilities(loaded, texts)
    for ids, prompt, one in zip(texts, steered, found, strict=True):
        with steer(loaded, prompt, delta=3.0):
            (alone,) = log_probabilities(loaded, [ids])
        expected = [getattr(alone, field) for field in FIELDS]
        assert distance(one, expected) <= 2 * BOUND
        assert distance(one, naive(loaded.model, ids)) > 1e-3


def test_a_beginning_is_not_the_whole_of_a_text(monkeypatch):
    loaded, same = tiny("llama"), text(12)
    shapes = watch(loaded.model, monkeypatch)
    log_probabilities(loaded, [same, same])
    log_probabilities(loaded, [text(7), text(7)])  # too short to be worth a pass more
    assert shapes == [(1, 10), (2, 1), (2, 6)]


@pytest.mark.parametrize("architecture", ["llama", "mamba"])
def test_where_pads_matter_every_text_is_alone(architecture, monkeypatch):
    loaded = tiny(architecture)
    touchy = replace(loaded, capabilities=replace(loaded.capabilities, left_padding=False))
    shapes = watch(loaded.model, monkeypatch)
    log_probabilities(touchy, TEXTS)
    assert shapes == sorted(((1, len(ids) - 1) for ids in TEXTS if len(ids) > 1), reverse=True)


def test_without_a_cache_to_go_on_from_a_text_that_fits_has_one_pass(monkeypatch):
    loaded = tiny("mamba")
    shapes = watch(loaded.model, monkeypatch)
    log_probabilities(loaded, [text(100)], token_budget=10)
    assert shapes == [(1, 99)]
    monkeypatch.setattr(module, "CPU_LOGITS", 40 * WORDS)
    log_probabilities(loaded, [text(100)], token_budget=10)
    assert shapes[1:] == [(1, 33), (1, 66), (1, 99)]


def test_a_model_that_can_leave_out_no_logits_gives_all_at_once(monkeypatch):
    loaded = tiny("llama")
    forward, arrays = loaded.model.forward, expected("llama")[2]
    monkeypatch.setattr(module, "CPU_LOGITS", WORDS)
    monkeypatch.setattr(
        loaded.model,
        "forward",
        lambda input_ids, use_cache: forward(input_ids=input_ids, use_cache=use_cache),
    )
    plain = replace(loaded, capabilities=replace(loaded.capabilities, cached_continuation=False))
    (found,) = log_probabilities(plain, TEXTS[2:3])
    assert distance(found, arrays) <= BOUND


class Largest(TorchDispatchMode):
    """The most elements of any tensor of words' scores that is made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for made in tree_leaves(output):
            if isinstance(made, torch.Tensor) and made.shape[-1:] == (WORDS,):
                self.elements = max(self.elements, made.numel())
        return output


@pytest.mark.parametrize(
    ("architecture", "length"), [("llama", 1024), ("gemma2", 600), ("mamba", 300), ("mamba2", 300)]
)
def test_all_logits_of_a_text_never_exist_together(architecture, length, monkeypatch):
    most = 100 * WORDS
    monkeypatch.setattr(module, "CPU_LOGITS", most)
    monkeypatch.setattr(module, "SLICE", most // 4)
    with Largest() as largest:
        log_probabilities(tiny(architecture), [text(length)])
    assert 64 * WORDS < largest.elements <= most  # 64 times as many: the weights of the head


@pytest.mark.parametrize("length", [1, 2, 7])
def test_the_first_token_of_a_text_has_no_log_probability(length):
    (found,) = log_probabilities(tiny("gpt2"), [text(length)])
    assert [len(getattr(found, field)) for field in FIELDS] == [length - 1] * 3


def test_no_texts_give_no_results():
    assert log_probabilities(tiny("llama"), []) == []


def test_the_moments_are_those_of_a_distribution():
    (found,) = log_probabilities(tiny("gpt2"), [text(300)])
    assert (found.log_probability < 0).all()
    assert (found.variance > 0).all()
    assert (-np.log(WORDS) <= found.mean).all()  # minus the entropy, which is at most log V
    assert (found.mean < 0).all()


def test_bfloat16_logits_are_measured_in_float32():
    loaded = tiny("llama")
    half = replace(loaded, model=copy.deepcopy(loaded.model).to(torch.bfloat16))
    (found,) = log_probabilities(half, [TEXTS[2]])
    assert distance(found, naive(half.model, TEXTS[2])) <= BOUND
    assert distance(found, expected("llama")[2]) > 1e-3


def logits_of(loaded, scores):
    """The model with the same scores of the next token everywhere."""

    def forward(input_ids, use_cache):
        return SimpleNamespace(logits=torch.tensor(scores).expand(*input_ids.shape, -1))

    config = SimpleNamespace(get_text_config=lambda **_: SimpleNamespace(vocab_size=len(scores)))
    model = SimpleNamespace(config=config, device=torch.device("cpu"), forward=forward)

    class Model(SimpleNamespace):
        def __call__(self, input_ids, **inputs):
            return self.forward(input_ids, **inputs)

    return replace(loaded, model=Model(**vars(model)))


def test_by_hand():
    loaded = logits_of(tiny("llama"), [0.0, float(np.log(3)), 0.0, -1e4])
    (found,) = log_probabilities(loaded, [[0, 1, 2]])
    low, high = np.log(0.2), np.log(0.6)
    mean = 0.4 * low + 0.6 * high
    variance = 0.4 * (low - mean) ** 2 + 0.6 * (high - mean) ** 2
    assert found.log_probability == pytest.approx([high, low], abs=1e-6)
    assert found.mean == pytest.approx([mean] * 2, abs=1e-6)
    assert found.variance == pytest.approx([variance] * 2, abs=1e-6)


def test_a_model_that_is_certain_has_no_variance():
    (found,) = log_probabilities(logits_of(tiny("llama"), [500.0, -500.0]), [[0, 0, 1]])
    assert found.log_probability.tolist() == [0, -1000]
    assert found.mean.tolist() == found.variance.tolist() == [0, 0]


def test_a_text_longer_than_the_context_is_refused_before_any_pass(monkeypatch):
    loaded = tiny("llama")
    shapes = watch(loaded.model, monkeypatch)
    with pytest.raises(
        PromptTooLongError, match=r"texts\[1\] has 1025 tokens.* holds 1024"
    ) as info:
        log_probabilities(loaded, [text(5), text(1025)])
    assert isinstance(info.value, RequestError)
    assert shapes == []
    (found,) = log_probabilities(loaded, [text(1024)])
    assert len(found.mean) == 1023


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("token_budget", [4096, 10])
def test_a_number_that_is_none_is_an_error_that_names_the_text(broken, token_budget, monkeypatch):
    loaded = tiny("llama")

    def spoil(ids, output):
        for row, place in (ids == 999).nonzero().tolist():
            output.logits[row, place, 3] = broken

    texts = [[n % 900 for n in range(30)], [7, 7, 999, 7], [n % 900 for n in range(40)]]
    watch(loaded.model, monkeypatch, spoil)
    with pytest.raises(InvalidLogitsError, match=r"texts\[1\]: .*NaN or infinite.*float32"):
        log_probabilities(loaded, texts, token_budget=token_budget)
    assert len(log_probabilities(loaded, texts[::2], token_budget=token_budget)) == 2


def test_what_follows_a_text_in_its_row_cannot_spoil_it(monkeypatch):
    loaded = tiny("llama")

    def spoil(ids, output):
        assert ids.shape == (2, 29)
        output.logits[1, 3:] = float("nan")  # the second row's last token is at 3

    watch(loaded.model, monkeypatch, spoil)
    found = log_probabilities(loaded, [text(30), text(4, 1)])
    assert [len(one.mean) for one in found] == [29, 3]


@pytest.mark.parametrize("ids", [[1, WORDS], [-1, 5]])
def test_a_token_that_the_model_does_not_know_is_refused(ids):
    with pytest.raises(CasesError, match=r"texts\[1\] holds .* knows 0 to 2047: use its own tok"):
        log_probabilities(tiny("llama"), [[1, 2], ids])


def test_a_text_without_tokens_is_refused():
    with pytest.raises(CasesError, match=r"texts\[1\] has no tokens: leave it out"):
        log_probabilities(tiny("llama"), [[1, 2], []])


def test_a_budget_without_tokens_is_refused():
    with pytest.raises(SettingsError, match=r"token_budget 0 .* at least 1"):
        log_probabilities(tiny("llama"), [[1, 2]], token_budget=0)
