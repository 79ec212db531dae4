"""Packed weights give the model's own products, follow its weights, and leave no trace."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from architectures import plain_generate, tiny

from pytest_llmprobe import Engine, GenerateConfig
from pytest_llmprobe.engine import attention_parts, linear_products
from pytest_llmprobe.engine import packed_weights as packing
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.engine.linear_products import in_half
from pytest_llmprobe.engine.packed_weights import PackedWeights, packed_weights
from pytest_llmprobe.models.registry import IN_MEMORY

PROMPTS = [f"the old stone is here, the red river is {place}?" for place in ("far", "near", "new")]
pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"
)


@pytest.fixture
def fresh(monkeypatch, request):
    """A tiny model that nobody else holds, whose packed products count as faster."""
    monkeypatch.setattr(packing, "FEW", 0)
    monkeypatch.setattr(packing, "LEAST", 0)
    monkeypatch.setattr(
        packing, "_fastest", lambda groups, products, rows, turns=3: list(products)[-1]
    )
    loaded = tiny(getattr(request, "param", "llama"))
    return replace(loaded, model=copy.deepcopy(loaded.model))


def some_ids(count):
    return torch.arange(5, 5 + count)[None]


@pytest.fixture
def watched(monkeypatch):
    """Counts the packed products."""
    calls, product = [], torch.ops.mkldnn._linear_pointwise.default

    def counted(*args):
        calls.append(args[0].shape)
        return product(*args)

    operators = SimpleNamespace(
        _linear_pointwise=SimpleNamespace(default=counted),
        _reorder_linear_weight=torch.ops.mkldnn._reorder_linear_weight,
        _is_mkldnn_bf16_supported=torch.ops.mkldnn._is_mkldnn_bf16_supported,
    )
    monkeypatch.setattr(torch.ops, "mkldnn", operators)
    return calls


@pytest.mark.parametrize("fresh", ["llama", "gpt2", "qwen2"], indirect=True)
def test_answers_are_those_of_plain_generate(fresh, watched):
    expected = [plain_generate(fresh, prompt) for prompt in PROMPTS]
    backend = FastBackend(fresh, drafts=False)
    assert "MiB that each process has for itself" in backend.path
    watched.clear()
    for batch_size in (None, 2):
        completions = Engine(backend, batch_size=batch_size).generate(PROMPTS, GenerateConfig(12))
        assert [c.token_ids for c in completions] == expected
    groups = len(backend._packed.groups)
    assert groups >= 12
    assert len(watched) >= 2 * 11 * groups  # every step, every layer, biases too
    assert not any("forward" in vars(module) for module in fresh.model.modules())


@pytest.mark.parametrize("batch_size", [None, 3])
def test_close_calls_are_decided_by_the_models_own_products(
    fresh, watched, monkeypatch, batch_size
):
    monkeypatch.setattr("pytest_llmprobe.engine.fast_backend.CLOSE_CALL", float("inf"))
    backend = FastBackend(fresh)
    expected = [plain_generate(fresh, prompt) for prompt in PROMPTS]
    decoded, packed = backend._decoded, []

    def noted(*rows, **how):
        packed.append(how["faster"])
        return decoded(*rows, **how)

    monkeypatch.setattr(backend, "_decoded", noted)
    for prompts in (PROMPTS, PROMPTS[:1]):
        completions = Engine(backend, batch_size=batch_size).generate(prompts, GenerateConfig(12))
        assert [c.token_ids for c in completions] == expected[: len(prompts)]
        assert all(c.redone for c in completions)
    assert packed == [True, *[False] * 3, True, False]


@torch.inference_mode()
def test_logits_differ_by_rounding_at_every_number_of_rows(fresh, watched):
    weights = packed_weights(fresh.model)
    watched.clear()
    for count in (1, 2, 3, 20, 50, 200):
        own = fresh.model(some_ids(count)).logits
        with weights.active():
            its = fresh.model(some_ids(count)).logits
        assert torch.allclose(own, its, atol=1e-4)
    assert len(watched) == 6 * len(weights.groups)
    with weights.active():  # no row: nobody wants logits of a text's beginning
        nothing = fresh.model(some_ids(3), logits_to_keep=torch.tensor([], dtype=torch.long)).logits
    assert nothing.shape[1] == 0


def test_a_copy_for_which_there_is_no_memory_leaves_the_layers_as_they_are(fresh, monkeypatch):
    weights = packed_weights(fresh.model)
    last, reorder = weights.layers[-1], packing.MAKERS["oneDNN"]

    def tight(group):
        if last in group:
            raise MemoryError
        return reorder(group)

    monkeypatch.setitem(packing.MAKERS, "oneDNN", tight)
    with pytest.raises(MemoryError), weights.active():
        pytest.fail("not reached")
    assert not any("forward" in vars(module) for module in fresh.model.modules())
    monkeypatch.setitem(packing.MAKERS, "oneDNN", reorder)
    with weights.active():
        assert "forward" in vars(last)


@pytest.mark.parametrize("change", ["in place", "another", "loaded"])
def test_a_changed_weight_is_copied_again(fresh, change):
    weights = packed_weights(fresh.model)
    with weights.active():
        pass
    layer = fresh.model.model.layers[0].mlp.up_proj
    with torch.no_grad():
        if change == "in place":
            layer.weight.mul_(1.5)
        elif change == "another":
            layer.weight = torch.nn.Parameter(layer.weight * 1.5)
        else:
            layer.load_state_dict({"weight": layer.weight * 1.5})
    with torch.inference_mode():
        own = fresh.model(some_ids(9)).logits
        with weights.active():
            assert torch.allclose(fresh.model(some_ids(9)).logits, own, atol=1e-4)


@pytest.mark.parametrize("fresh", ["qwen2"], indirect=True)
def test_a_changed_bias_is_copied_again(fresh):
    weights = packed_weights(fresh.model)
    with weights.active():
        pass
    with torch.no_grad():
        fresh.model.model.layers[0].self_attn.k_proj.bias.add_(1)
    with torch.inference_mode():
        own = fresh.model(some_ids(9)).logits
        with weights.active():
            assert torch.allclose(fresh.model(some_ids(9)).logits, own, atol=1e-4)


def test_who_wants_gradients_meanwhile_gets_the_models_own_products(fresh, watched):
    weights = packed_weights(fresh.model)
    own = fresh.model(some_ids(9)).logits
    watched.clear()
    with weights.active(), weights.active():
        logits = fresh.model(some_ids(9)).logits
        logits.sum().backward()
    assert torch.equal(logits, own)
    assert not watched
    assert fresh.model.model.layers[0].mlp.up_proj.weight.grad is not None


def test_what_is_not_an_ordinary_layer_is_left_alone(fresh):
    attention = fresh.model.model.layers[0].self_attn
    attention.q_proj.forward = attention.q_proj.forward  # as accelerate's hooks do

    class Other(torch.nn.Linear):
        pass

    attention.o_proj.__class__ = Other
    up_proj = fresh.model.model.layers[1].mlp.up_proj
    up_proj.weight.__class__ = type("Other", (torch.nn.Parameter,), {})  # as of quantised weights
    layers = packed_weights(fresh.model).layers
    assert attention.q_proj not in layers
    assert attention.o_proj not in layers
    assert fresh.model.model.layers[1].mlp.up_proj not in layers
    assert attention.k_proj in layers


def test_why_weights_are_not_copied(fresh, monkeypatch):
    def path():
        packing._KNOWN.clear()
        return FastBackend(fresh).path

    monkeypatch.setattr(packing, "_fastest", lambda *_, **how: "torch")
    assert path().endswith("weights not copied: torch's own product was measured to be as fast")
    monkeypatch.setattr(
        packing.psutil, "virtual_memory", lambda: SimpleNamespace(available=2**20, total=2**40)
    )
    assert "not copied: 0.0 GiB would be more than an eighth of the free memory" in path()
    monkeypatch.setattr(packing, "FEW", 2**40)
    assert path().endswith("not copied: they are few")
    held = replace(fresh, spec=replace(fresh.spec, source=IN_MEMORY))
    assert FastBackend(held).path.endswith("not copied: their owner may change them")


@torch.inference_mode()
def test_each_number_of_rows_goes_the_way_that_was_faster(fresh, watched):
    layer = fresh.model.model.layers[0].mlp.up_proj
    weights = PackedWeights([(layer,)], ("torch", "oneDNN", "torch"))
    with weights.active():
        for rows in (0, 1, 2, 3, 8, 31, 33, 128, 500):
            layer(torch.ones(1, rows, 64))
    assert [shape[1] for shape in watched] == [3, 8, 31]


def test_bfloat16_is_packed_in_another_order_where_the_processor_has_it(fresh, monkeypatch):
    for module in (linear_products, packing):
        monkeypatch.setattr(module, "is_widened", lambda dtype: False)
    half = fresh.model.to(torch.bfloat16)
    found = packed_weights(half)
    supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert isinstance(found, PackedWeights) == bool(supported)
    if supported:
        with torch.inference_mode(), found.active():
            assert half(some_ids(9)).logits.isfinite().all()


HALVES = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines, reason="this torch has no FBGEMM"
)


def linear(weight, bias=None):
    layer = torch.nn.Linear(*reversed(weight.shape), bias=bias is not None)
    layer.weight = torch.nn.Parameter(weight)
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias)
    return layer


@HALVES
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1e-6, 0.02, 1, 300.0])
@pytest.mark.parametrize("bias", [False, True])
def test_weights_of_a_checkpoint_in_16_bits_lose_nothing_in_16_bits(kind, size, bias):
    draw = torch.Generator().manual_seed(1)
    weight = (size * torch.randn(70, 90, generator=draw)).to(kind).float()
    layer = linear(weight, torch.randn(70, generator=draw) if bias else None)
    product = in_half([layer])
    assert product is not None
    with torch.inference_mode():
        for rows in (1, 3, 40):
            text = torch.randn(1, rows, 90, generator=draw)
            more = layer.bias.double() if bias else torch.zeros(70, dtype=torch.double)
            exact = text.double() @ weight.double().t() + more
            terms = text.double().abs() @ weight.double().abs().t() + more.abs()
            assert ((product(text) - exact).abs() <= 1e-6 * terms).all()


SHORT = [torch.bfloat16, torch.float16]


@pytest.fixture
def without_instructions(monkeypatch):
    """A processor that has no instructions for numbers of 16 bits."""
    for module in (linear_products, packing, attention_parts):
        monkeypatch.setattr(module, "is_widened", SHORT.__contains__)


@HALVES
@pytest.mark.usefixtures("without_instructions")
@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize("bias", [False, True])
def test_layers_of_16_bits_are_rounded_once_on_a_processor_without_them(kind, bias):
    draw = torch.Generator().manual_seed(1)
    weight = torch.randn(70, 90, generator=draw)
    layer = linear(weight, torch.randn(70, generator=draw) if bias else None).to(kind)
    assert linear_products.can_be_copied(layer)
    product = in_half([layer])
    with torch.inference_mode():
        text = torch.randn(1, 40, 90, generator=draw).to(kind)
        found = product(text)
        more = layer.bias.double() if bias else 0
        exact = text.double() @ layer.weight.double().t() + more
    assert found.dtype == kind
    assert ((found - exact).abs() <= torch.finfo(kind).eps / 2 * exact.abs() + 1e-4).all()


@HALVES
@pytest.mark.usefixtures("without_instructions")
@pytest.mark.parametrize("kind", SHORT)
def test_a_model_of_16_bits_has_its_copies_from_the_first_token_on(fresh, kind, monkeypatch):
    def never(*given, **named):
        raise AssertionError("measured: the answers would depend on it")

    monkeypatch.setattr(packing, "_fastest", never)
    wide = copy.deepcopy(fresh.model)
    short = fresh.model.to(kind)
    wide.load_state_dict(short.state_dict())
    # Nor on what else is in memory, but on the machine's.
    room = SimpleNamespace(available=2**20, total=2**40)
    monkeypatch.setattr(packing.psutil, "virtual_memory", lambda: room)
    found = packed_weights(short)
    assert found.in_use
    assert found.half_s is None
    numbers = sum(layer.weight.numel() for layer in found.layers)
    name = str(kind).removeprefix("torch.")
    assert found.described == (
        f"copied for 16 bits, as this processor has no instructions for {name}: "
        f"{numbers / 2**19:.0f} MiB that each process has for itself"
    )
    with torch.inference_mode():
        own, exact = short(some_ids(9)).logits.float(), wide(some_ids(9)).logits
        with found.active():
            packed = short(some_ids(9)).logits.float()
    # No further from the same weights in float32 than the model's own products.
    assert (packed - exact).norm() <= 1.2 * (own - exact).norm()


@HALVES
@pytest.mark.usefixtures("without_instructions")
def test_layers_of_float32_in_a_model_of_16_bits_stay_as_exact_as_they_are(fresh):
    model = fresh.model.bfloat16()
    first, last = model.model.layers[0].self_attn.q_proj, model.lm_head
    for layer in (first, last):
        layer.float()
        layer.register_forward_pre_hook(lambda _, given: (given[0].float(),))
    first.register_forward_hook(lambda _, given, output: output.bfloat16())
    exact = model(some_ids(9)).logits
    found = packed_weights(model)
    assert "no instructions for bfloat16:" in found.described
    with torch.inference_mode(), found.active():
        logits = model(some_ids(9)).logits
        text = torch.randn(1, 3, 64)
        expected = torch.nn.functional.linear(text, last.weight)
        assert torch.allclose(last(text), expected, atol=1e-5)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, exact, atol=0.1 * exact.abs().max().item())


@HALVES
@pytest.mark.usefixtures("without_instructions")
@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize("fresh", ["llama", "gpt2", "qwen2"], indirect=True)
def test_a_model_of_16_bits_answers_in_batches_as_its_self_in_float32(fresh, kind):
    fresh.model.to(kind)
    wide = replace(fresh, model=copy.deepcopy(fresh.model).float())
    prompts = [f"{'the red river is far from the old stone. ' * 9}{prompt}" for prompt in PROMPTS]
    backend = FastBackend(fresh)
    assert backend._packed.in_use
    config = GenerateConfig(max_new_tokens=12)
    answers = Engine(backend).generate(prompts, config)
    expected = Engine(wide).generate(prompts, config)
    same = [a.token_ids == b.token_ids for a, b in zip(answers, expected, strict=True)]
    assert sum(same) >= 2  # one may turn by rounding


@pytest.mark.usefixtures("without_instructions")
@pytest.mark.parametrize("kind", SHORT)
def test_attention_in_16_bits_is_that_of_float32_on_the_same_numbers(kind):
    draw = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(2, n, 40, 16, generator=draw).to(kind) for n in (4, 2, 2))
    wide = [tensor.float() for tensor in (query, key, value)]
    for attend in (attention_parts.attend, attention_parts.attend_to_earlier):
        found, expected = (attend(*given, 0.25) for given in ((query, key, value), wide))
        assert torch.equal(found.output, expected.output)
        assert torch.equal(found.lse, expected.lse)
    bias = torch.zeros(2, 1, 40)
    found = attention_parts.attend_to_all(query[:, :, 0], key, value, 0.25, bias)
    expected = attention_parts.attend_to_all(wide[0][:, :, 0], *wide[1:], 0.25, bias)
    assert torch.equal(found, expected.to(kind))


@HALVES
@pytest.mark.parametrize(
    "weight",
    [
        torch.randn(20, 30),  # digits that 16 bits do not hold
        torch.full((20, 30), torch.inf),
        torch.zeros(20, 30),
        torch.tensor([[1.0, 2.0**-12 + 2.0**-23]]),  # far from the largest, but not beyond notice
    ],
)
def test_other_weights_are_not_halved(weight):
    assert in_half([linear(weight)]) is None


@HALVES
@pytest.mark.parametrize("fresh", ["llama", "gpt2"], indirect=True)
def test_copies_in_16_bits_are_made_when_they_pay(fresh, monkeypatch):
    fresh.model.bfloat16().float()
    expected = [plain_generate(fresh, prompt) for prompt in PROMPTS]
    backend = FastBackend(fresh, drafts=False)
    weights = backend._packed
    assert weights.chosen == ("oneDNN",) * 3
    assert "to be copied in 16 bits, which hold them, after" in backend.path
    weights.half_s = 1e-3

    def said():
        return [c.token_ids for c in Engine(backend).generate(PROMPTS, GenerateConfig(12))]

    assert said() == expected
    assert weights.chosen == ("oneDNN",) * 3  # nothing had been generated before
    assert said() == expected
    assert weights.chosen == ("16 bits",) * 3
    assert "to be copied" not in backend.path
    assert all(set(known.products) == {"16 bits"} for known in weights._weights.values())
    with torch.inference_mode():
        own = fresh.model(some_ids(9)).logits
        with weights.active():
            assert torch.allclose(fresh.model(some_ids(9)).logits, own, atol=1e-4)
    with torch.no_grad():  # digits that 16 bits do not hold: the layer's own product
        fresh.model.lm_head.weight.mul_(1 / 3)
    with torch.inference_mode():
        own = fresh.model(some_ids(9)).logits
        with weights.active():
            assert torch.allclose(fresh.model(some_ids(9)).logits, own, atol=1e-4)


@HALVES
def test_a_small_layer_beside_a_large_one_loses_nothing_either():
    large, small = torch.full((4, 8), 300.0), torch.full((4, 8), 1.0078125 * 2.0**-26)
    assert in_half([linear(large), linear(small)]) is None  # its digits are below float16's least
    assert in_half([linear(small)]) is not None
    small = torch.full((4, 8), 2.0**-7)
    with torch.inference_mode():
        product = in_half([linear(large), linear(small, torch.ones(4))])
        assert torch.equal(product(torch.ones(1, 8)), torch.tensor([[2400.0] * 4 + [1.0625] * 4]))


@HALVES
def test_copies_of_a_small_model_are_made_once_it_has_been_in_use(fresh, monkeypatch):
    monkeypatch.setattr(packing, "LEAST", 2**40)
    fresh.model.bfloat16().float()
    expected = [plain_generate(fresh, prompt) for prompt in PROMPTS]
    backend = FastBackend(fresh, drafts=False)
    weights = backend._packed
    assert not weights.in_use
    assert backend.path.endswith(
        "to be copied in 16 bits, which hold them, after 2 s of generation"
    )

    def said(prompts=PROMPTS):
        return [c.token_ids for c in Engine(backend).generate(prompts, GenerateConfig(12))]

    assert said() == expected
    assert said(PROMPTS[:1]) == expected[:1]
    assert not weights._weights
    weights.half_s = 1e-3
    assert said() == expected
    assert weights.chosen == ("16 bits",) * 3
    assert backend.path.endswith("0 MiB that each process has for itself")


@HALVES
def test_one_layer_that_16_bits_do_not_hold_leaves_all_as_they_are(fresh):
    fresh.model.bfloat16().float()
    weights = packed_weights(fresh.model)
    with torch.no_grad():
        fresh.model.lm_head.weight.mul_(1 / 3)
    weights.half_s = 0
    with weights.active():
        pass
    assert weights.chosen == ("oneDNN",) * 3
    assert weights.half_s is None


def test_the_way_that_takes_least_is_chosen_unless_it_is_hardly_less(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(packing.time, "perf_counter", lambda: clock.now)

    def taking(seconds):
        def product(text):
            clock.now += seconds * text.shape[1]

        return [product]

    layer = linear(torch.ones(4, 4))
    products = {"torch": taking(60), "oneDNN": taking(58), "16 bits": taking(30)}
    assert packing._fastest([(layer,)], products, 3) == "16 bits"
    del products["16 bits"]
    assert packing._fastest([(layer,)], products, 3) == "torch"
