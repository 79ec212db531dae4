"""Models and prompts of the speed benchmarks: texts, so that other harnesses can be given them."""

from dataclasses import replace

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from pytest_llmprobe import LoadedModel, load_model
from pytest_llmprobe.data import prose
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.models.capabilities import measure
from pytest_llmprobe.models.registry import ModelSpec

HAYSTACK = """Extract the value corresponding to the specified key in the JSON object below.

{}

Key: "{}"
Corresponding value:"""


def reference():
    return load_model("reference")


def random_model(name, **shape):
    """Sharp enough weights for close calls to be as rare as a trained model's."""
    config = LlamaConfig(**shape, max_position_embeddings=4096)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    model.lm_head.weight.data.mul_(20)
    model.generation_config = GenerationConfig(eos_token_id=[2], pad_token_id=0)
    tokenizer = reference().tokenizer
    spec = ModelSpec(name, "made from a config")
    return LoadedModel(spec, model, tokenizer, measure(model, tokenizer, 0), (2,), 0, {})


def random_5m():
    return random_model(
        "random 5M",
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        vocab_size=4096,
    )


def random_82m():
    return random_model(
        "random 82M",
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=11,
        num_attention_heads=12,
        vocab_size=4096,
    )


def rounded(model):
    """The same model with weights rounded to bfloat16, as after a small change."""
    changed = LlamaForCausalLM(model.model.config).eval()
    changed.load_state_dict(model.model.state_dict())
    changed.generation_config = model.model.generation_config
    return replace(model, model=changed.bfloat16().float())


def shared_haystack(rng, haystacks, questions=20):
    """Haystacks of 40 pairs of UUIDs, 1,500 tokens, with questions of 60 tokens each."""
    for _ in range(haystacks):
        pairs = needle.random_pairs(40, rng)
        for key, _ in rng.sample(pairs, questions):
            yield HAYSTACK.format(needle.render(pairs), key)


def independent(rng, prompts):
    """Prose of 50 to 800 tokens."""
    for _ in range(prompts):
        yield prose.prose(rng, rng.randint(2, 38))
