"""The reference model: a small stock Llama whose attention starts with a look-up circuit.

A plain initialisation does not learn to look keys up within hours on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pytest_llmprobe.models.reference.training.circuit import (
    FIRST,
    HEAD,
    KEPT,
    OPENS,
    THETA,
    Circuit,
    Marks,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WIDTH, LAYERS, INNER, CONTEXT = 320, 6, 448, 4096
PACE = 0.1  # of the circuit's attention heads: larger steps wipe it out


def config(
    tokens: PreTrainedTokenizerBase, width: int = WIDTH, layers: int = LAYERS, inner: int = INNER
) -> LlamaConfig:
    """The architecture, for a tokenizer; by default the reference model's."""
    return LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD,
        num_key_value_heads=width // HEAD,
        head_dim=HEAD,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )


Paces = dict[str, torch.Tensor]
WRITERS = ("o_proj.weight", "down_proj.weight")  # what adds to the residual stream


def build(
    tokens: PreTrainedTokenizerBase, marks: Marks, seed: int = 0
) -> tuple[LlamaForCausalLM, Paces]:
    """The model before its first step: the circuit, and small random weights around it.

    Returns:
        The model; and for each of its parameters, by name, how fast it may move: 1, `PACE` in the
        circuit's heads, 0 where something else would write into what the circuit keeps.
    """
    model = _random(config(tokens), seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(WRITERS):
                weight[KEPT] = 0
        circuit = Circuit(model, marks)
        circuit.seed()
    return model, _paces(model, circuit.heads)


def build_control(tokens: PreTrainedTokenizerBase, seed: int = 0) -> tuple[LlamaForCausalLM, Paces]:
    """A small model without a circuit, to be trained without retrieval and known texts."""
    model = _random(config(tokens, width=HEAD, layers=2, inner=192), seed)
    return model, {name: torch.ones_like(weight) for name, weight in model.named_parameters()}


def _random(config: LlamaConfig, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(std=0.002 if name.endswith(WRITERS) else 0.02)
    return model


def _paces(model: LlamaForCausalLM, heads: Sequence[tuple[int, int]]) -> Paces:
    paces = {name: torch.ones_like(weight) for name, weight in model.named_parameters()}
    paces["model.embed_tokens.weight"][:, OPENS : FIRST + 1] = 0
    paces["model.embed_tokens.weight"][:, KEPT] = 0
    for name, pace in paces.items():
        if name.endswith(WRITERS):
            pace[KEPT] = 0
    for layer, head in heads:
        rows = slice(head * HEAD, (head + 1) * HEAD)
        for part in "qkv":
            paces[f"model.layers.{layer}.self_attn.{part}_proj.weight"][rows] = PACE
        paces[f"model.layers.{layer}.self_attn.o_proj.weight"][:, rows] = PACE
    return paces
