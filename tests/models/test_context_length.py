"""How long a context is where rotary embeddings are stretched, as vLLM derives it."""

import json

import pytest
from transformers import CONFIG_MAPPING, AutoConfig

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.context_length import context_length
from pytest_llmprobe.models.registry import ModelSpec, with_options
from pytest_llmprobe.models.token_counter import TokenCounter

YARN = {"rope_type": "yarn", "factor": 4.0}
ROPES = {
    "yarn": (64, YARN | {"original_max_position_embeddings": 64}, 256),
    "yarn within a stretched length": (256, YARN | {"original_max_position_embeddings": 64}, 256),
    "yarn that names no length": (64, YARN, 256),
    "linear": (64, {"rope_type": "linear", "factor": 4.0}, 256),
    "dynamic": (64, {"rope_type": "dynamic", "factor": 4}, 256),
    "as older configs say it": (64, {"type": "linear", "factor": 4.0}, 256),
    "none": (64, {"rope_type": "default", "rope_theta": 1e4}, 64),
    "llama 3": (131_072, {"rope_type": "llama3", "factor": 8.0}, 131_072),
    "longrope": (131_072, {"rope_type": "longrope", "factor": 32.0}, 131_072),
    "without a factor": (64, {"type": "mrope", "mrope_section": [1, 2]}, 64),
    "by kind of layer": (64, {"full": {"rope_type": "linear", "factor": 4.0}, "near": {}}, 256),
    "damaged": (64, [4.0], 64),
}


@pytest.mark.parametrize("name", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize(("length", "rope", "right"), ROPES.values(), ids=ROPES)
def test_a_stretched_context_is_as_long_as_it_is(name, length, rope, right):
    config = {"max_position_embeddings": length, name: rope}
    assert context_length(config) == right
    assert context_length({"max_position_embeddings": 9, "text_config": config}) == right


def rope(kind, factor=None, original=None, **more):
    named = {"factor": factor, "original_max_position_embeddings": original}
    return {"type": kind} | {name: value for name, value in named.items() if value} | more


FREQUENCIES = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
PUBLIC = {  # of config.json on the hub; the length is what vLLM derives from it
    "Llama-2-7b": ("llama", 4096, None, 4096),
    "Llama-3.1-8B": ("llama", 131_072, rope("llama3", 8.0, 8192, **FREQUENCIES), 131_072),
    "Llama-3.2-1B": ("llama", 131_072, rope("llama3", 32.0, 8192, **FREQUENCIES), 131_072),
    "vicuna-7b-v1.5-16k": ("llama", 4096, rope("linear", 4.0), 16_384),
    "deepseek-coder-6.7b": ("llama", 16_384, rope("linear", 4.0), 65_536),
    "Qwen2.5-7B": ("qwen2", 32_768, None, 32_768),
    "Qwen2.5-7B with yarn": ("qwen2", 32_768, rope("yarn", 4.0, 32_768), 131_072),
    "Qwen3-8B with yarn": ("qwen3", 40_960, rope("yarn", 4.0, 32_768), 131_072),
    "DeepSeek-V3": ("deepseek_v3", 163_840, rope("yarn", 40, 4096, mscale=1.0), 163_840),
    "DeepSeek-V2-Lite": ("deepseek_v2", 163_840, rope("yarn", 40, 4096), 163_840),
    "gpt-oss-20b": ("gpt_oss", 131_072, rope("yarn", 32.0, 4096), 131_072),
    "internlm2_5-7b": ("internlm2", 32_768, rope("dynamic", 2.0), 65_536),
    "Phi-3-mini-4k": ("phi3", 4096, None, 4096),
    "Phi-3-mini-128k": ("phi3", 131_072, rope("longrope", short_factor=[1.0]), 131_072),
    "Phi-3-mini-128k as at first": ("phi3", 131_072, rope("su", short_factor=[1.0]), 131_072),
    "Qwen2-VL-7B": ("qwen2_vl", 32_768, rope("mrope", mrope_section=[16, 24, 24]), 32_768),
    "gemma-3-4b": ("gemma3_text", 131_072, rope("linear", 8.0), 131_072),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_models_have_the_length_that_vllm_derives(name):
    kind, length, scaling, right = PUBLIC[name]
    config = {"model_type": kind, "max_position_embeddings": length, "rope_scaling": scaling}
    assert context_length(config) == right


STRETCHED = [
    name
    for name, (kind, _, scaling, _) in PUBLIC.items()
    if scaling and kind in CONFIG_MAPPING and kind not in ("phi3", "qwen2_vl")  # factors by size
]


@pytest.mark.parametrize("name", STRETCHED)
def test_transformers_own_form_of_a_config_has_the_same_length(name):
    kind, length, scaling, right = PUBLIC[name]
    config = AutoConfig.for_model(
        kind, max_position_embeddings=length, rope_parameters=scaling | {"rope_theta": 1e4}
    )
    assert context_length(config.get_text_config().to_dict()) == right


@pytest.mark.parametrize(
    ("config", "right"),
    [
        ({"model_type": "mpt", "max_seq_len": 2048}, 2048),
        ({"model_type": "chatglm", "seq_length": 32_768}, 32_768),
        ({"max_position_embeddings": 8192, "model_max_length": 131_072}, 131_072),  # Command R
        ({"model_type": "gpt_bigcode", "n_positions": 8192}, 8192),
        ({"max_position_embeddings": 4096, "max_sequence_length": 2048}, 2048),
        ({"model_type": "mamba", "state_size": 16}, None),
        ({"max_position_embeddings": -1}, None),
    ],
)
def test_other_names_of_the_length(config, right):
    assert context_length(config) == right


def test_gemma_3_names_its_length_with_the_factor_in_it():
    rope = {"full_attention": {"rope_type": "linear", "factor": 8.0}}
    config = {"model_type": "gemma3_text", "max_position_embeddings": 131_072}
    assert context_length(config | {"rope_parameters": rope}) == 131_072


def test_the_users_length_wins(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 64}))
    spec = ModelSpec("here", str(tmp_path))
    assert TokenCounter(spec).context_length == 64
    assert TokenCounter(with_options(spec, context=50)).context_length == 50
    for wrong in (0, -1, True, "64", 2.0):
        with pytest.raises(ModelError, match="is no whole number from 1 up"):
            with_options(spec, context=wrong)
