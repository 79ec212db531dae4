"""Tiny random models from configs, in fp32 on the CPU, with the reference model's tokenizer."""

import copy
from functools import cache

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from pytest_llmprobe.models.capabilities import measure
from pytest_llmprobe.models.loading import LoadedModel
from pytest_llmprobe.models.registry import REFERENCE, ModelSpec

END, PAD = 2, 0
VOCABULARY = {"vocab_size": 2048, "pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": END}
BASE = VOCABULARY | {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
GPT = VOCABULARY | {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 1024}
NO_GQA = {key: value for key, value in BASE.items() if key != "num_key_value_heads"}
# A window of 8 rolls within every prompt here.
ARCHITECTURES = {
    "llama": BASE,
    "mistral": BASE | {"sliding_window": 8},
    "gemma": BASE | {"head_dim": 16},
    "gemma2": BASE | {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16},
    "gemma3_text": BASE | {"head_dim": 16, "sliding_window": 8, "sliding_window_pattern": 2},
    "qwen2": BASE,
    "qwen3": BASE | {"head_dim": 16},
    "gpt2": GPT,
    "gpt_neox": NO_GQA,
    "gptj": GPT | {"rotary_dim": 8},
    "phi3": BASE,
    "olmo2": BASE,
    "cohere2": BASE | {"sliding_window": 8},
    "opt": VOCABULARY
    | {"hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    | {"max_position_embeddings": 1024, "word_embed_proj_dim": 64, "dropout": 0.0},
    "falcon": VOCABULARY | {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4},
    "bloom": VOCABULARY
    | {"hidden_size": 64, "n_layer": 3, "n_head": 4, "tie_word_embeddings": False},
    "stablelm": BASE,
    "starcoder2": BASE | {"sliding_window": 8},
    "mamba": VOCABULARY | {"hidden_size": 64, "num_hidden_layers": 3, "state_size": 8},
    "mamba2": VOCABULARY
    | {"hidden_size": 64, "num_hidden_layers": 3, "state_size": 8, "num_heads": 8, "head_dim": 16}
    | {"n_groups": 1, "chunk_size": 16},
    "falcon_h1": BASE
    | {"head_dim": 16, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16}
    | {"mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 16},
    "lfm2": BASE | {"layer_types": ["conv", "full_attention", "conv"]},
}
# Rotated otherwise if any text of a pass has more than 96 tokens.
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "original_max_position_embeddings": 96,
    "short_factor": [1.0] * 8,
    "long_factor": [3.0] * 8,
}
# Phi3 has a limit of its own, which goes before that of its rotation.
TURNING = BASE | {"rope_parameters": LONGROPE, "original_max_position_embeddings": 96}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
TURNED = {
    "llama dynamic": BASE | {"rope_parameters": DYNAMIC, "max_position_embeddings": 96},
    "phi3 longrope": TURNING,
    "phi3 longrope, window": TURNING | {"sliding_window": 64},
}
# Other ways to see a window: which layers do, sinks, a window that some prompts fit into.
WINDOWS = {
    "qwen2 window": BASE
    | {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1},
    "phi3 window": BASE | {"sliding_window": 8},
    "ministral": BASE | {"head_dim": 16, "sliding_window": 8},
    "olmo3": BASE
    | {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2}
    | {"num_hidden_layers": 4},
    "exaone4": BASE | {"sliding_window": 8, "sliding_window_pattern": 2},
    "gpt_oss": BASE
    | {"head_dim": 16, "sliding_window": 8, "num_local_experts": 4, "num_experts_per_tok": 2}
    | {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}},
    "mistral longer": BASE | {"sliding_window": 140},
    "gemma2 longer": BASE | {"head_dim": 16, "sliding_window": 140, "query_pre_attn_scalar": 16},
}
# Kept states beside attention, and attention in chunks, of which no prompt is in one.
HYBRIDS = {
    "granitemoehybrid": BASE
    | {"layer_types": ["mamba", "attention", "mamba"], "mamba_n_heads": 8, "mamba_d_head": 16}
    | {"mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16, "mamba_expand": 2}
    | {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 64},
    "qwen3_next": BASE
    | {"head_dim": 16, "num_hidden_layers": 4, "linear_num_key_heads": 2}
    | {"linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
    | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    | {"shared_expert_intermediate_size": 32},
    "llama4_text": BASE
    | {"head_dim": 16, "attention_chunk_size": 32, "intermediate_size_mlp": 96}
    | {"num_local_experts": 2, "num_hidden_layers": 4},
}
COPIED = ("mamba", "mamba2", "falcon_h1", "lfm2", "bloom", "gptj", *HYBRIDS)
# The others keep a state, or have an attention of their own: through generate.
PACKED = {"gemma", "gpt2", "gpt_neox", "llama", "olmo2", "opt", "phi3", "qwen2", "qwen3"} | {
    "stablelm",
    *("mistral", "gemma2", "gemma3_text", "cohere2", "starcoder2"),
}


@cache
def tiny(architecture):
    """A loaded model whose weights are sharp enough for logits to differ clearly."""
    known = ARCHITECTURES | WINDOWS | TURNED | HYBRIDS
    config = AutoConfig.for_model(architecture.split()[0], **known[architecture])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and not any(word in name for word in ("conv", "A_log", "embed")):
                parameter *= 4
    model.generation_config = GenerationConfig(eos_token_id=[END], pad_token_id=PAD)
    tokenizer = AutoTokenizer.from_pretrained(REFERENCE)
    spec = ModelSpec(architecture, "made from a config")
    return LoadedModel(spec, model, tokenizer, measure(model, tokenizer, PAD), (END,), PAD, {})


def unturned(model):
    """The model, with rotary embeddings that have seen no longer text yet."""
    if "dynamic" not in str(getattr(model.config, "rope_parameters", None)):
        return model
    model = copy.deepcopy(model)
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    return model


def plain_generate(loaded, prompt, max_new_tokens=12):
    """transformers' own generate on one prompt: the oracle."""
    ids = torch.tensor(
        [
            loaded.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True
            )["input_ids"]
        ]
    )
    output = unturned(loaded.model).generate(
        ids,
        attention_mask=torch.ones_like(ids),
        generation_config=GenerationConfig(
            max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=[END], pad_token_id=PAD
        ),
    )
    return tuple(output[0, ids.shape[1] :].tolist())


def noisy(loaded, part=0.02):
    """The same model with noise of a part of each tensor's deviation on its weights."""
    other, model = copy.copy(loaded), copy.deepcopy(loaded.model)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += (
                part
                * parameter.std(unbiased=False)
                * torch.randn(parameter.shape, generator=random)
            )
    object.__setattr__(other, "model", model)
    return other
