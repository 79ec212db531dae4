"""Configs as reports hold them: what changes an answer is in, and nothing grows without bound."""

import json

import pytest
from transformers import AutoConfig, GenerationConfig, LlamaConfig

from pytest_llmprobe.models.config_facts import (
    MAX_CHARACTERS,
    MAX_KEYS,
    adapter_facts,
    changed_files,
    config_facts,
    file_facts,
)
from pytest_llmprobe.models.registry import REFERENCE


def test_values_are_found_by_name_wherever_they_are():
    config = LlamaConfig(rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    facts = config_facts(config.to_dict())
    assert facts["rope_parameters.rope_theta"] == 5e5
    assert facts["hidden_size"] == config.hidden_size
    assert facts["tie_word_embeddings"] is False
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_theta": 100.0},
        {"rms_norm_eps": 1e-3},
        {"hidden_act": "gelu"},
        {"num_attention_heads": 8},
        {"attention_bias": True},
        {"eos_token_id": [1, 2]},
        {"sliding_window": 64},
    ],
)
def test_a_value_that_matters_changes_them(changes):
    assert config_facts(LlamaConfig(**changes).to_dict()) != config_facts(LlamaConfig().to_dict())


@pytest.mark.parametrize(
    "changes",
    [
        {"_name_or_path": "/elsewhere"},
        {"transformers_version": "4.0.0"},
        {"torch_dtype": "float16"},
        {"dtype": "float16"},
        {"_attn_implementation": "eager"},
        {"architectures": ["Other"]},
        {"text_config": {"dtype": "float16", "_commit_hash": "abc"}},
    ],
)
def test_bookkeeping_does_not(changes):
    plain = {"hidden_size": 4, "text_config": {"_commit_hash": "xyz"}}
    # A part of which nothing is left is the same as none.
    assert config_facts(plain | changes) == config_facts(plain)


def test_loading_twice_gives_the_same():
    first, second = (AutoConfig.from_pretrained(REFERENCE) for _ in range(2))
    assert config_facts(first.to_dict()) == config_facts(second.to_dict())
    assert config_facts(GenerationConfig.from_pretrained(REFERENCE).to_diff_dict())


def test_however_large_a_config_is_its_facts_are_not():
    huge = {f"key{n}": "x" * 10_000 for n in range(3000)} | {
        "table": {str(n): n for n in range(5000)},
        "list": list(range(100_000)),
        "numbers": [float("nan"), float("inf")],
        "bad": float("nan"),
    }
    facts = config_facts(huge)
    assert len(facts) == MAX_KEYS
    assert all(len(str(value)) <= MAX_CHARACTERS for value in facts.values())
    json.dumps(facts, allow_nan=False)
    assert config_facts(huge | {"key2999": "y"}) != facts
    assert config_facts(huge | {"list": list(range(1, 100_001))}) != facts
    assert config_facts(huge | {"table": {str(n): n + 1 for n in range(5000)}}) != facts


def test_adapters_are_known_by_their_configs_in_whatever_order(tmp_path):
    def facts(name="lora", **config):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps(config))
        (folder / "adapter_model.safetensors").touch()
        return adapter_facts(str(folder))

    lora = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    first = facts(**lora, base_model_name_or_path="/here")
    assert first["lora.lora_alpha"] == 16
    same = {**lora, "target_modules": ["v_proj", "q_proj"], "base_model_name_or_path": "/there"}
    assert facts(**same) == first
    assert facts(**lora | {"lora_alpha": 32}) != first
    assert adapter_facts(None) == {}


def test_files_that_changed_are_named(tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"rope_theta": 1e8, "transformers_version": "5.0.0"}')
    before = {"files": file_facts(tmp_path)}
    assert changed_files(tmp_path, before) == []
    config.write_text('{"transformers_version": "6.0.0",   "rope_theta": 100000000.0}')
    assert changed_files(tmp_path, before) == []
    (tmp_path / "generation_config.json").write_text("{}")
    assert changed_files(tmp_path, before) == ["generation_config.json"]
    config.write_text('{"rope_theta": 100}')
    assert changed_files(tmp_path, before) == ["config.json", "generation_config.json"]
    config.write_text("{")
    assert changed_files(tmp_path, before) == ["config.json", "generation_config.json"]
    for nothing in ({}, {"files": None}, {"files": {}}):
        assert changed_files(tmp_path, nothing) == []
    assert changed_files(None, before) == changed_files(tmp_path / "gone", before) == []
