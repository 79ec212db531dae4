"""Quantised weights: read as transformers reads them, or refused before any is."""

import importlib.util
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pytest_llmprobe import Engine, GenerateConfig, load_model
from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models import loading, machine, quantization
from pytest_llmprobe.models.registry import REFERENCE, ModelSpec, resolve
from pytest_llmprobe.models.spec_fields import QUANTIZATIONS
from pytest_llmprobe.report.weights_text import weights_lines


@pytest.fixture
def unread(monkeypatch):
    """No weight may be read."""
    monkeypatch.setattr(loading, "load_weights", lambda *_: pytest.fail("weights were read"))


def refused(spec, check):
    with pytest.raises(ModelError) as error:
        check(spec)
    assert "\n" not in str(error.value)
    return str(error.value)


CHECKS = {"library": loading.load_spec, "command line": machine.check_machine}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", QUANTIZATIONS)
def test_a_package_that_is_absent_is_named_before_loading(monkeypatch, unread, name, check):
    monkeypatch.setattr(quantization, "find_spec", lambda _: None)
    spec = ModelSpec("reference", str(REFERENCE), quantization=name, device="cpu")
    package = quantization.WAYS[name].package
    assert f"pip install {package}" in refused(spec, CHECKS[check])


@pytest.mark.parametrize("check", CHECKS)
def test_what_a_cpu_cannot_do_is_said_before_loading(monkeypatch, unread, check):
    monkeypatch.setattr(quantization, "find_spec", lambda _: object())
    spec = ModelSpec("reference", str(REFERENCE), quantization="int4wo", device="cpu")
    assert "needs a GPU" in refused(spec, CHECKS[check])


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    ("method", "package"),
    [
        ("gptq", "optimum"),
        ("awq", "gptqmodel"),
        ("compressed-tensors", "compressed-tensors"),
        ("bitsandbytes", "bitsandbytes"),
        ("no-such-method", "no-such-method"),
    ],
)
def test_a_quantised_checkpoint_names_the_package_that_it_needs(
    tmp_path, unread, method, package, check
):
    if importlib.util.find_spec(package.replace("-", "_")):
        pytest.skip(f"{package} is installed")
    more = {"load_in_4bit": True} if method == "bitsandbytes" else {"bits": 4, "group_size": 128}
    folder = quantised_folder(tmp_path, quant_method=method, **more)
    said = refused(resolve(str(folder)), CHECKS[check])
    assert method in said
    assert package in said


def test_a_method_that_transformers_does_not_know_can_be_served(tmp_path, unread):
    folder = quantised_folder(tmp_path, quant_method="exl9", bits=4)
    said = refused(resolve(str(folder)), loading.load_spec)
    assert "does not know that method" in said
    assert "openai:NAME" in said


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fp8_is_read_with_its_scales_on_a_cpu(tmp_path, dtype):
    """Transformers gives the weights their scales back where no GPU can multiply by eight bits."""
    folder = quantised_folder(
        tmp_path, quant_method="fp8", activation_scheme="dynamic", weight_block_size=[32, 32]
    )
    tensors, expected = {}, load_file(REFERENCE / "model.safetensors")
    for name, weight in expected.items():
        tensors[name] = weight
        if weight.ndim == 2 and "_proj" in name:
            rows, columns = (size // 32 for size in weight.shape)
            blocks = weight.float().reshape(rows, 32, columns, 32)
            scale = blocks.abs().amax((1, 3)).clamp(min=1e-12) / 448
            eighth = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
            tensors[name] = eighth.reshape(weight.shape)
            tensors[name.replace("weight", "weight_scale_inv")] = scale
            expected[name] = (eighth.float() * scale[:, None, :, None]).reshape(weight.shape)
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = load_model(str(folder), dtype=dtype, device="cpu")
    assert str(loaded.model.dtype) == f"torch.{dtype}"
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {loaded.model.dtype}
    assert weights_lines(loaded.info) == [
        "weights: stored as fp8, dequantised, as this device cannot use them so"
    ]
    (answer,) = Engine(loaded).generate(["Why?"], GenerateConfig(max_new_tokens=4))
    assert answer.token_ids
    state = loaded.model.state_dict()
    for name in tensors:
        if name in state:
            torch.testing.assert_close(
                state[name].float(), expected[name].float(), rtol=2**-7, atol=1e-6
            )


def test_a_quantised_checkpoint_is_not_quantised_again(tmp_path, unread):
    folder = quantised_folder(tmp_path, quant_method="gptq", bits=4)
    spec = ModelSpec("m", str(folder), quantization="nf4")
    assert "leave the option out" in refused(spec, loading.load_spec)


def quantised_folder(folder, **method):
    for name in ("tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (folder / name).symlink_to(REFERENCE / name)
    config = json.loads((REFERENCE / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": method}))
    return folder


def test_nf4_is_as_guide_has_it():
    config = quantization.quantization_config("nf4")
    assert config.bnb_4bit_quant_type == "nf4"
    assert config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert config == quantization.quantization_config("4bit")


@pytest.mark.parametrize("name", ["nf4", "int8", "int8wo"])
def test_a_quantised_model_answers_as_transformers_loads_it(name):
    package = quantization.WAYS[name].package
    pytest.importorskip(package)
    loaded = load_model("reference", quantization=name, device="cpu")
    prompt = "Give the value alone."
    (answer,) = Engine(loaded).generate([prompt], GenerateConfig(max_new_tokens=8))
    oracle = AutoModelForCausalLM.from_pretrained(
        REFERENCE,
        dtype=torch.float32,
        device_map="cpu",
        quantization_config=quantization.quantization_config(name),
    )
    ids = torch.tensor([Engine(loaded).backend.encode(prompt)])
    out = oracle.generate(input_ids=ids, max_new_tokens=8, do_sample=False)
    assert list(answer.token_ids) == out[0, ids.shape[1] :].tolist()
    plain = load_model("reference")
    assert loaded.info["fingerprint"] != plain.info["fingerprint"]
    assert loaded.info["quantization"] == name
