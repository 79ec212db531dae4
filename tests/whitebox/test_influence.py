"""Influence against a naive computation that stores every map, and its invariants."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ATTENTION_ONLY, HYBRIDS, KINDS, REFUSED, loaded, text, tiny
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_llmprobe.errors import CasesError, ModelError, SettingsError
from pytest_llmprobe.whitebox import influence as module
from pytest_llmprobe.whitebox.attention import LONG
from pytest_llmprobe.whitebox.influence import METHODS, influence, influence_maps
from pytest_llmprobe.whitebox.spans import SpannedPrompt, TokenSpan
from pytest_llmprobe.whitebox.steering import steer

LENGTH = 21
SPANS = ((2, 3, 4), (12,), tuple(range(LENGTH)), ())
EAGER = [pair for pair in KINDS if pair[0] in ATTENTION_ONLY and pair[1] == "eager"]


def attention_modules(model):
    wanted = ("self_attn", "attn", "attention")
    return [part for name, part in model.named_modules() if name.rpartition(".")[2] in wanted]


@torch.no_grad()
def naive(model, ids, spans, method, norm="residual"):
    """All maps, all hidden states and all outputs are kept; then one recursion for each span."""
    entered, added, heads = [], [], []

    def keep_input(part, args, options):
        entered.append((args[0] if args else options["hidden_states"])[0])

    def keep_output(part, args, output):
        added.append(output[0][0])

    def keep_heads(part, args):
        heads.append(args[0][0])

    hooks = []
    for part in attention_modules(model):
        hooks.append(part.register_forward_pre_hook(keep_input, with_kwargs=True))
        hooks.append(part.register_forward_hook(keep_output))
        names = ("o_proj", "c_proj", "dense", "out_proj")
        projection = next(getattr(part, name) for name in names if hasattr(part, name))
        hooks.append(projection.register_forward_pre_hook(keep_heads))
    output = model(
        torch.tensor([ids]), use_cache=False, output_attentions=True, output_hidden_states=True
    )
    for hook in hooks:
        hook.remove()

    def size(states):
        return states.double().abs().sum(-1)

    maps = []
    for span in spans:
        seed = torch.zeros(len(ids), dtype=torch.double)
        seed[list(span)] = 1
        state, rows = seed, [seed]
        for layer, attentions in enumerate(output.attentions):
            each = attentions[0].double()
            weights = torch.ones(each.shape[:2], dtype=torch.double)
            if method == "heads":
                parts = heads[layer].view(len(ids), each.shape[0], -1)
                weights = parts.double().norm(dim=-1).T
            mean = (weights[..., None] * each).sum(0) / weights.sum(0)[:, None]
            x, o = size(output.hidden_states[layer][0]), size(added[layer])
            if norm == "upstream":
                x = size(entered[max(layer - 1, 0)])
            if method == "attention":
                rows.append(each.mean(0) @ seed / max(1, len(span)))
                continue
            if method == "rollout":
                state = (state + mean @ state) / 2
            else:
                state = (x * state + o * (mean @ state)) / (x + o)
            rows.append(state)
        maps.append(torch.stack(rows))
    return torch.stack(maps).numpy()


@pytest.mark.parametrize("norm", ["residual", "upstream"])
@pytest.mark.parametrize("architecture", ATTENTION_ONLY)
def test_it_equals_a_computation_that_stores_every_map(architecture, norm, monkeypatch):
    ids = text(LENGTH)
    expected = {
        method: naive(tiny(architecture, "eager"), ids, SPANS, method, norm) for method in METHODS
    }
    monkeypatch.setattr(module, "CHUNK", 1)  # as few queries at a time as there may be
    for pair in KINDS:
        if pair[0] == architecture:
            maps = influence_maps(tiny(*pair), ids, SPANS, methods=METHODS, norm=norm)
            assert set(maps) == set(METHODS)
            for method in METHODS:
                assert maps[method].shape == (len(SPANS), 4, LENGTH)
                assert maps[method].dtype == np.float32
                np.testing.assert_allclose(maps[method], expected[method], rtol=0, atol=1e-6)
    assert not np.allclose(expected["influence"], expected["rollout"], atol=1e-3)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_a_text_that_the_models_own_attention_takes_in_blocks_is_exact(
    architecture, whole, monkeypatch
):
    """Of more than a chunk of queries, all but the first had seen the wrong keys."""
    ids, spans = text(LONG + 90), [[3, 4], [*range(LONG, LONG + 9)]]
    monkeypatch.setattr(module, "CHUNK", 1)
    if not whole:  # in pieces, as what the kernel does not serve
        monkeypatch.setattr(module, "_by_kernel", lambda call: None)
    maps = influence_maps(tiny(architecture), ids, spans, methods=METHODS)
    for method in METHODS:
        expected = naive(tiny(architecture, "eager"), ids, spans, method)
        np.testing.assert_allclose(maps[method], expected, rtol=0, atol=1e-6)


def test_the_chunks_and_the_other_methods_change_nothing(monkeypatch):
    model, ids = tiny("gemma3_text"), text(LENGTH)
    whole = influence_maps(model, ids, SPANS, methods=METHODS)
    for queries in (8, 13, LENGTH):
        monkeypatch.setattr(module, "CHUNK", 4 * LENGTH * queries)
        for method in METHODS:
            maps = influence_maps(model, ids, SPANS, methods=[method])
            np.testing.assert_allclose(maps[method], whole[method], rtol=0, atol=1e-6)


def test_a_model_is_as_it_was_afterwards():
    model, ids = tiny("llama"), torch.tensor([text(LENGTH)])
    with torch.no_grad():
        before = model(ids).logits
        influence_maps(model, ids[0].tolist(), SPANS)
        assert torch.equal(model(ids).logits, before)
    assert model.config._attn_implementation == "sdpa"
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_the_models_output_is_that_of_a_plain_pass():
    """The layers' outputs are computed in the same pass as the maps."""
    model, ids = tiny("gemma2"), text(LENGTH)
    logits = []
    hook = model.lm_head.register_forward_hook(lambda part, args, out: logits.append(out[0, -1]))
    with torch.no_grad():
        model(torch.tensor([ids]))
    influence_maps(model, ids, SPANS)
    hook.remove()
    assert (logits[0] - logits[-1]).abs().max() < 1e-5
    assert len(logits) > 1


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_invariants(data):
    architecture = data.draw(st.sampled_from(["llama", "gemma2", "gpt2", "mistral", "olmo2"]))
    ids = data.draw(st.lists(st.integers(3, 96), min_size=1, max_size=18))
    labels = data.draw(st.lists(st.integers(0, 2), min_size=len(ids), max_size=len(ids)))
    first, second = ([i for i, label in enumerate(labels) if label == n] for n in (1, 2))
    spans = [first, second, sorted(first + second), range(len(ids)), []]
    for norm in ("residual", "upstream"):
        maps = influence_maps(tiny(architecture), ids, spans, methods=METHODS, norm=norm)
        for method in METHODS:
            values = maps[method].astype(float)
            assert values.min() >= 0
            assert values.max() <= 1 + 1e-5
            one, other, both, everything, nothing = values
            assert not nothing.any()
            for span, reached in ((first, one), (second, other)):
                assert not reached[:, : min(span, default=len(ids))].any()  # causal
            if method != "attention":  # that is a mean over the span's tokens
                np.testing.assert_allclose(everything, 1, atol=1e-5)
                np.testing.assert_allclose(one + other, both, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt_oss"])
def test_half_precision_changes_little(architecture):
    model, ids = tiny(architecture), text(LENGTH)
    exact = influence_maps(model, ids, SPANS, methods=METHODS)
    half = copy.deepcopy(model).to(torch.bfloat16)
    maps = influence_maps(half, ids, SPANS, methods=[*METHODS, "heads"])
    for method in METHODS:
        assert maps[method].dtype == np.float32
        np.testing.assert_allclose(maps[method], exact[method], rtol=0, atol=0.05)


def test_steering_raises_the_influence_of_what_it_steers():
    model, ids, span = tiny("llama"), text(LENGTH), (2, 3, 4)
    prompt = SpannedPrompt(tuple(ids), (TokenSpan(span),))
    ends = []
    for delta in (-3, 0, 3):
        with steer(model, prompt, delta=delta):
            ends.append(influence_maps(model, ids, [span])["influence"][0, -1, -1])
    assert ends[0] < ends[1] < ends[2]
    assert ends[1] == influence_maps(model, ids, [span])["influence"][0, -1, -1]
    with steer(tiny("llama", "eager"), prompt, delta=3):
        expected = naive(tiny("llama", "eager"), ids, [span], "influence")
    assert ends[2] == pytest.approx(expected[0, -1, -1], abs=1e-6)


class LargestTensor(TorchDispatchMode):
    """The most numbers that any operation's result has."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for result in results if isinstance(results, tuple | list) else [results]:
            if isinstance(result, torch.Tensor):
                self.numbers = max(self.numbers, result.untyped_storage().nbytes() // 4)
        return results


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_no_map_is_stored(kind, monkeypatch):
    model, ids = tiny("llama", kind), text(400)
    monkeypatch.setattr(module, "CHUNK", 4 * 400 * 20)
    with LargestTensor() as largest:
        influence_maps(model, ids, [range(5)], methods=METHODS)
    one_map = 400 * 400  # eager's own causal mask; a map has as much for each head
    assert largest.numbers <= (one_map if kind == "eager" else one_map / 3)
    with LargestTensor() as largest, torch.no_grad():
        tiny("llama", "eager")(torch.tensor([ids]), output_attentions=True)
    assert largest.numbers >= 4 * one_map


@pytest.mark.parametrize("architecture", [*HYBRIDS, *REFUSED])
def test_models_with_more_than_attention_are_refused(architecture):
    with pytest.raises(ModelError, match=r"influence is not defined|cannot be steered"):
        influence_maps(tiny(architecture), text(8), [[1]])


def test_impossible_arguments_are_refused():
    model = tiny("llama")
    with pytest.raises(SettingsError, match="unknown method 'flow'; known: influence, heads"):
        influence_maps(model, text(8), [[1]], methods=["flow"])
    with pytest.raises(SettingsError, match="'residual' or 'upstream'"):
        influence_maps(model, text(8), [[1]], norm="both")
    for ids, spans, methods in (([], [[]], METHODS), ([5], [], METHODS), ([5], [[0]], [])):
        with pytest.raises(SettingsError, match="needs a text, a span"):
            influence_maps(model, ids, spans, methods=methods)
    with pytest.raises(SettingsError, match="position 8 is outside a text of 8 tokens"):
        influence_maps(model, text(8), [[8]])


def test_a_substring_of_a_prompt():
    model = loaded()
    prompt = "Please say in French: the red stone is here."
    found = influence(model, prompt, "in French")
    start, end = found.prompt.positions[0], found.prompt.positions[-1] + 1
    assert model.tokenizer.decode(found.prompt.ids[start:end]).strip() == "in French"
    assert found.values.shape == (4, len(found.prompt.ids))
    assert found.values[0].sum() == end - start
    assert found.at_end(10) == pytest.approx(found.values[-1, -10:].mean())
    assert 0 < found.at_end(5) < 1
    raw = influence(model, prompt, "in French", method="attention")
    assert raw.method == "attention"
    assert 0 < raw.at_end(1) < 1
    with pytest.raises(CasesError, match="does not hold"):
        influence(model, prompt, "in German")
