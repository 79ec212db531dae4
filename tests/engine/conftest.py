"""Tiny random models from configs, in fp32 on the CPU, with the reference model's tokenizer."""

from functools import cache

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from pytest_llmprobe.models.capabilities import measure
from pytest_llmprobe.models.loading import LoadedModel
from pytest_llmprobe.models.registry import REFERENCE, ModelSpec

SMALL = {
    "vocab_size": 1935,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ARCHITECTURES = {
    "llama": SMALL,
    "mistral": SMALL | {"sliding_window": 16},
    "gpt2": {"vocab_size": 1935, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 512},
    "mamba": {"vocab_size": 1935, "hidden_size": 64, "num_hidden_layers": 3, "state_size": 8},
}


@cache
def tiny(architecture):
    """A loaded model whose weights are sharp enough for logits to differ clearly."""
    config = CONFIG_MAPPING[architecture](**ARCHITECTURES[architecture])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter *= 4
    model.generation_config = GenerationConfig(eos_token_id=[2], pad_token_id=0)
    tokenizer = AutoTokenizer.from_pretrained(REFERENCE)
    spec = ModelSpec(architecture, "made from a config")
    return LoadedModel(spec, model, tokenizer, measure(model, tokenizer, 0), (2,), 0, {})


@pytest.fixture(params=ARCHITECTURES)
def tiny_model(request):
    return tiny(request.param)


@pytest.fixture
def llama():
    return tiny("llama")
