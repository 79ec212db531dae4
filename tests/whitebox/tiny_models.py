"""Tiny random models of many architectures, sharp enough for attention to differ clearly."""

from functools import cache

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from pytest_llmprobe.models.capabilities import measure
from pytest_llmprobe.models.loading import LoadedModel
from pytest_llmprobe.models.registry import REFERENCE, ModelSpec

END, PAD, VOCABULARY = 2, 0, 97
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": END}
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
NO_GQA = TOKENS | SIZES | {"intermediate_size": 48, "max_position_embeddings": 512}
BASE = NO_GQA | {"num_key_value_heads": 2}
WIDE = BASE | {"head_dim": 8}
WINDOW = {"sliding_window": 8}  # rolls within every prompt here
GPT = TOKENS | {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 2}
ATTENTION_ONLY = {
    "llama": BASE,
    "mistral": BASE | WINDOW,
    "gemma": WIDE,
    "gemma2": WIDE | WINDOW | {"query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0},
    "gemma3_text": WIDE | WINDOW | {"sliding_window_pattern": 2, "query_pre_attn_scalar": 8},
    "qwen2": BASE,
    "qwen3": WIDE,
    "gpt2": GPT,
    "gpt_neox": NO_GQA,
    "phi3": BASE,
    "olmo2": BASE,
    "cohere2": BASE | WINDOW,
    "gpt_oss": WIDE | WINDOW | EXPERTS,
    "opt": TOKENS | SIZES | {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0},
    "stablelm": BASE,
    "starcoder2": BASE | WINDOW,
    "llama4_text": WIDE
    | {"intermediate_size_mlp": 48, "num_local_experts": 2, "attention_chunk_size": 8},
}
HYBRIDS = {
    "falcon_h1": WIDE
    | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8}
    | {"mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 16},
    "lfm2": BASE | {"layer_types": ["conv", "full_attention", "conv"]},
    "qwen3_next": WIDE
    | {"layer_types": ["linear_attention", "linear_attention", "full_attention"]}
    | {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8}
    | {"linear_value_head_dim": 8, "num_experts": 2, "num_experts_per_tok": 2}
    | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
}
REFUSED = {
    "mamba": TOKENS | {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 8},
    "mamba2": TOKENS
    | {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 8, "num_heads": 8, "head_dim": 8}
    | {"n_groups": 1, "chunk_size": 16},
    "bloom": TOKENS | {"hidden_size": 32, "n_layer": 3, "n_head": 4, "tie_word_embeddings": False},
    "gptj": GPT | {"rotary_dim": 8},
}
STEERABLE = ATTENTION_ONLY | HYBRIDS
EAGER_ONLY = {"gemma2", "gpt_oss"}  # a soft-cap, a sink
KINDS = [
    (architecture, kind)
    for architecture in STEERABLE
    for kind in ("sdpa", "eager")
    if kind == "eager" or architecture not in EAGER_ONLY
]


@cache
def tiny(architecture, kind=None, **changes):
    """A transformers model in float32 whose attention is far from flat."""
    config = (STEERABLE | REFUSED)[architecture] | changes
    options = {} if kind is None else {"attn_implementation": kind}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(architecture, **config), dtype=torch.float32, **options
        ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and not any(word in name for word in ("conv", "A_log")):
                parameter *= 4
    model.generation_config = GenerationConfig(eos_token_id=None, pad_token_id=PAD)
    return model


@cache
def loaded(architecture="llama"):
    """With the reference model's tokenizer and chat template."""
    tokenizer = AutoTokenizer.from_pretrained(REFERENCE)
    model = tiny(architecture, vocab_size=len(tokenizer))
    spec = ModelSpec(architecture, "made from a config")
    return LoadedModel(spec, model, tokenizer, measure(model, tokenizer, PAD), (END,), PAD, {})


def text(length, seed=0):
    """Token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
