"""Fingerprints of weights: every change of a value or of its place is seen, nothing else is."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from pytest_llmprobe.models.fingerprint import (
    BLOCK,
    block_sums,
    block_sums_on_device,
    fingerprint,
)

SEEDS = range(20)


def bits(tensor):
    """0 and -0 are not the same."""
    return tensor.view(torch.int32)


class Weights:
    """What a model's ``state_dict`` is asked for."""

    def __init__(self, **tensors):
        self._tensors = tensors

    def state_dict(self):
        return self._tensors


def of(tensor):
    return fingerprint(Weights(weight=tensor))


def swapped_rows(weight, generator):
    first, second = torch.randperm(len(weight), generator=generator)[:2].tolist()
    weight[[first, second]] = weight[[second, first]]


def transposed_halves(weight, generator):
    half = len(weight) // 2
    weight[:half, :half] = weight[:half, :half].T.clone()


def exchanged_halves(weight, generator):
    weight.copy_(weight.roll(len(weight) // 2, 0))


def one_value(weight, generator):
    row, column = torch.randint(len(weight), (2,), generator=generator).tolist()
    weight[row, column] = torch.nextafter(weight[row, column], torch.tensor(torch.inf))


def one_sign(weight, generator):
    row, column = torch.randint(len(weight), (2,), generator=generator).tolist()
    weight[row, column] *= -1


def random(seed):
    return torch.randn(300, 300, generator=torch.Generator().manual_seed(seed))


def signs(seed):
    """Exchanged values differ in their highest bit alone."""
    return random(seed).sign()


def permutation(seed):
    """All sums of rows and of columns are 1, and so they stay."""
    return torch.eye(300)[random(seed)[0].argsort()]


CHANGES = (transposed_halves, exchanged_halves, one_value, one_sign)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("make", [random, signs, permutation])
@pytest.mark.parametrize(
    "change",
    [pytest.param(swapped_rows, id="swapped rows: went unseen in 17 of 20"), *CHANGES],
)
def test_a_change_is_seen(change, make, seed):
    weight = make(seed)
    before, unchanged = of(weight), weight.clone()
    change(weight, torch.Generator().manual_seed(seed))
    assert (of(weight) == before) == bits(weight).equal(bits(unchanged))


@pytest.mark.parametrize("make", [random, signs, permutation])
def test_any_two_values_that_are_exchanged_are_seen(make):
    weight = make(0)
    before, generator = of(weight), torch.Generator().manual_seed(0)
    for _ in range(500):
        (a, b), (c, d) = torch.randint(300, (2, 2), generator=generator).tolist()
        other = weight.clone()
        other[[a, c], [b, d]] = other[[c, a], [d, b]]
        assert (of(other) == before) == other.equal(weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8, torch.float64])
@pytest.mark.parametrize("seed", SEEDS)
def test_swapped_rows_are_seen_in_every_dtype(dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(99, 101, generator=generator) * 20).to(dtype)
    before = of(weight.clone())
    swapped_rows(weight, generator)
    assert of(weight) != before


@pytest.mark.parametrize("size", [0, 1, 3, 5, BLOCK - 1, BLOCK, 3 * BLOCK + 7])
def test_an_accelerator_gives_the_same(size):
    words = torch.from_numpy(np.random.default_rng(size).integers(0, 2**32, size, np.uint32))
    words = words.view(torch.int32)
    assert np.array_equal(block_sums(words.numpy()), block_sums_on_device(words))


@pytest.mark.parametrize("block", [0, 1])
def test_a_sum_is_as_defined(block):
    """Computed again with whole numbers of any size."""
    from pytest_llmprobe.models.fingerprint import WEIGHTS

    words = np.random.default_rng(0).integers(0, 2**32, BLOCK + 9, np.uint32)
    part = words[block * BLOCK : (block + 1) * BLOCK]
    forward = sum(int(n) * int(w) for n, w in zip(part, WEIGHTS[0], strict=False))
    backward = sum(
        int.from_bytes(int(n).to_bytes(4, "little"), "big") * int(w)
        for n, w in zip(part, WEIGHTS[1], strict=False)
    )
    assert block_sums(words)[:, block].tolist() == [forward % 2**32, backward % 2**32]


def test_shapes_names_and_dtypes_count():
    weight = torch.arange(12.0)
    seen = {
        of(weight),
        of(weight.reshape(3, 4)),
        of(weight.reshape(4, 3)),
        of(weight.view(torch.int32)),
        fingerprint(Weights(other=weight)),
        of(weight[:11]),
    }
    assert len(seen) == 6


def test_how_a_tensor_lies_in_memory_does_not():
    weight = torch.arange(12, dtype=torch.int8).reshape(3, 4)
    assert of(weight.T.contiguous().T) == of(weight)
    assert of(torch.arange(-1, 12, dtype=torch.int8)[1:].reshape(3, 4)) == of(weight)


def test_the_same_from_one_file_and_from_several(tmp_path):
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=500, num_attention_heads=4, **shape)
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="100KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    for name in ("one", "many"):
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype="float32")
        assert fingerprint(loaded) == fingerprint(model)
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "one", dtype="bfloat16")
    half.save_pretrained(tmp_path / "half")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype="bfloat16")
    assert fingerprint(again) == fingerprint(half) != fingerprint(model)
