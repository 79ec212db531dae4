"""Norms and rotations written shorter give the model's own numbers, and leave no trace."""

import copy

import pytest
import torch
from architectures import ARCHITECTURES, WINDOWS, tiny
from transformers.models.llama import modeling_llama as llama

from pytest_llmprobe.engine.short_forms import short_forms

IDS = torch.arange(40).remainder(29).add(5).view(2, 20)
KINDS = {
    "llama": {"LlamaRMSNorm": 7, "LlamaAttention": 3},
    "mistral": {"MistralRMSNorm": 7, "MistralAttention": 3},
    "qwen2": {"Qwen2RMSNorm": 7, "Qwen2Attention": 3},
    "qwen3": {"Qwen3RMSNorm": 13, "Qwen3Attention": 3},
    "gemma": {"GemmaRMSNorm": 7, "GemmaAttention": 3},
    "gemma2": {"Gemma2RMSNorm": 13, "Gemma2Attention": 3},
    "gemma3_text": {"Gemma3RMSNorm": 19, "Gemma3Attention": 3},
    "phi3": {"Phi3RMSNorm": 7},  # rotates a part of a head
    "gpt_neox": {},
    "gpt2": {},
}


def fresh(architecture):
    """A copy whose norms are not all 1, which tells a weight and one added to 1 apart."""
    model = copy.deepcopy(tiny(architecture).model)
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.data.add_(torch.rand(weight.shape, generator=generator))
    return model


@torch.inference_mode()
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *WINDOWS])
def test_logits_are_the_models_own(architecture):
    model = fresh(architecture)
    own = model(IDS, use_cache=False).logits
    forms = short_forms(model)
    with forms.active(), forms.active():
        short = model(IDS, use_cache=False).logits
    assert (short - own).abs().max() < 2e-5 * own.abs().max()
    assert torch.equal(model(IDS, use_cache=False).logits, own)
    found = {}
    for module, _ in forms.forwards:
        assert "forward" not in vars(module)
        found[type(module).__name__] = found.get(type(module).__name__, 0) + 1
    assert architecture not in KINDS or found == KINDS[architecture]


def test_they_compute_in_float32_where_no_gradients_are_wanted():
    model = fresh("gemma")
    with torch.no_grad():
        own = model(IDS, use_cache=False).logits
        with short_forms(model).active():
            assert torch.equal(model(IDS, use_cache=False).logits, own)
            with torch.inference_mode():
                assert not torch.equal(model(IDS, use_cache=False).logits, own)  # they are used
    half = fresh("gemma").bfloat16()
    with torch.inference_mode():
        own = half(IDS, use_cache=False).logits
        with short_forms(half).active():
            assert torch.equal(half(IDS, use_cache=False).logits, own)


class OtherNorm(llama.LlamaRMSNorm):
    def forward(self, hidden_states):
        return super().forward(hidden_states) * 2


class OtherAttention(llama.LlamaAttention):
    def forward(self, *args, **options):
        return super().forward(*args, **options)


@pytest.mark.parametrize("kind", [OtherNorm, OtherAttention])
def test_another_forward_is_not_taken_for_the_familys(kind):
    model = fresh("llama")
    changed = [m for m in model.modules() if isinstance(m, kind.__base__)]
    for module in changed:
        module.__class__ = kind
    assert changed
    assert not {id(m) for m, _ in short_forms(model).forwards} & set(map(id, changed))


def test_another_rotation_is_not_taken_for_the_familys(monkeypatch):
    own = llama.rotate_half
    monkeypatch.setattr(llama, "rotate_half", lambda x: own(x))
    found = [type(module) for module, _ in short_forms(fresh("llama")).forwards]
    assert found == [llama.LlamaRMSNorm] * 7


@pytest.mark.parametrize("known", [False, True])
def test_an_exchanged_forward_stays(known):
    model = fresh("llama")
    if known:
        short_forms(model)
    exchanged = model.model.norm.forward = lambda hidden_states: hidden_states
    with short_forms(model).active():
        assert vars(model.model.norm)["forward"] is exchanged
        assert "forward" in vars(model.model.layers[0].input_layernorm)
    assert vars(model.model.norm)["forward"] is exchanged
    assert "forward" not in vars(model.model.layers[0].input_layernorm)
