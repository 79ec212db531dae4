"""Layers with the same input share a product, found by what a model does; others do not."""

import copy

import pytest
import torch
from architectures import ARCHITECTURES, tiny
from torch import nn

from pytest_llmprobe.engine.linear_products import can_be_copied, own
from pytest_llmprobe.engine.same_input import Together, groups_of, put_in_place

IDS = torch.arange(12)[None] + 5


def fresh(architecture):
    return copy.deepcopy(tiny(architecture).model)


def always(product):
    return lambda _: product


def names_of(model, groups):
    name = {module: name.rpartition(".")[2] for name, module in model.named_modules()}
    return {tuple(name[layer] for layer in group) for group in groups}


def grouped(model):
    layers = [layer for layer in model.modules() if can_be_copied(layer)]
    groups = groups_of(model, layers)
    assert sorted(id(x) for group in groups for x in group) == sorted(map(id, layers))
    assert not any(layer._forward_pre_hooks or "forward" in vars(layer) for layer in layers)
    return groups


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        (
            "llama",
            {("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",)},
        ),
        ("gpt2", {("c_attn",), ("c_proj",), ("c_fc",)}),
        ("phi3", {("qkv_proj",), ("o_proj",), ("gate_up_proj",), ("down_proj",)}),
    ],
)
def test_groups_are_what_is_given_the_same_input(architecture, names):
    model = fresh(architecture)
    assert names_of(model, grouped(model)) == names | {("lm_head",)}


@torch.inference_mode()
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_the_models_own(architecture):
    model = fresh(architecture)
    groups, expected = grouped(model), model(IDS, use_cache=False).logits
    together = [Together(group, always(own(group))) for group in groups]
    with put_in_place(together):
        assert torch.allclose(model(IDS, use_cache=False).logits, expected, atol=1e-4)
    assert torch.equal(model(IDS, use_cache=False).logits, expected)
    assert all(one._last == (None, ()) for one in together)  # nothing is held on to


class Pair(nn.Module):
    """A model of two layers, the first of which is used as its subclasses say."""

    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.embed, self.first, self.second = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, input_ids, use_cache):
        self.logits = self.put_together(self.embed(input_ids))
        return self


class SameInput(Pair):
    def put_together(self, x):
        return self.first(x) * self.second(x)


class AnotherInput(Pair):
    def put_together(self, x):
        return self.first(x) * self.second(x + 0)


class CalledTwice(Pair):
    def put_together(self, x):
        return self.first(x) * self.second(x) + self.first(x)


class Flattened(Pair):
    def put_together(self, x):
        return self.first(x).view(-1) * self.second(x).view(-1)


class ChangedBetween(Pair):
    def put_together(self, x):
        return self.first(x) * self.second(x.mul_(2))


@pytest.mark.parametrize(
    ("kind", "count"),
    [(SameInput, 1), (AnotherInput, 2), (CalledTwice, 2), (Flattened, 2), (ChangedBetween, 2)],
)
def test_only_layers_that_can_share_a_product_do(kind, count):
    torch.manual_seed(0)
    assert len(grouped(kind())) == count


def test_what_comes_in_another_way_than_at_first_is_computed_by_itself():
    torch.manual_seed(0)
    model, x, y = SameInput(), torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    group = (model.first, model.second)
    together = Together(group, always(own(group)))
    with torch.inference_mode():
        first, second = model.first(x), model.second(y)
        with put_in_place([together]):
            assert torch.equal(model.second(y), second)  # before the first
            assert torch.equal(model.first(x), first)
            assert torch.equal(model.second(y), second)  # of another input
    with put_in_place([together]):
        (model.first(y) * model.second(y)).sum().backward()
    assert model.first.weight.grad is not None
    assert model.second.weight.grad is not None
