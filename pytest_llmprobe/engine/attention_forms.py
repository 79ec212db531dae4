"""An attention module's ``forward`` in fewer calls, where its code is Llama's or a relative's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from transformers.models.llama.modeling_llama import LlamaAttention
from transformers.models.mistral.modeling_mistral import MistralAttention
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

from pytest_llmprobe.engine.same_code import same_code

Forward: TypeAlias = Callable[..., Any]


class Relative(NamedTuple):
    """An attention module whose ``forward`` is written out here.

    Args:
        kind: Its class.
        options: What it gives the attention function beside what Llama's does.
        norms: Whether the heads of queries and keys are normed.
    """

    kind: type
    options: Callable[[Any], dict[str, Any]]
    norms: bool = False


def _window(module: Any) -> dict[str, Any]:
    return {"sliding_window": module.sliding_window}


RELATIVES = (
    Relative(LlamaAttention, lambda module: {}),
    Relative(
        MistralAttention,
        lambda module: {"sliding_window": getattr(module.config, "sliding_window", None)},
    ),
    Relative(Qwen2Attention, _window),
    Relative(Qwen3Attention, _window, norms=True),
)


def attention_form(module: Any, rotate: Forward) -> Forward | None:
    """What may stand for the module's ``forward``; None for a module of another code.

    Args:
        module: Any module that rotates queries and keys.
        rotate: What rotates them.
    """
    for relative in RELATIVES:
        if same_code(type(module), relative.kind, "forward"):
            return _written_out(module, relative, rotate)
    return None


def _written_out(module: Any, relative: Relative, rotate: Forward) -> Forward:
    """Heads stay where the products put them, and nothing is copied to be turned."""
    own = partial(type(module).forward, module)
    names = type(module).forward.__globals__
    interfaces, eager = names["ALL_ATTENTION_FUNCTIONS"], names["eager_attention_forward"]
    size: int = module.head_dim

    def forward(
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        **options: Any,
    ) -> Any:
        usual = past_key_values is None and not module.training
        if position_embeddings is None or not usual or not torch.is_inference_mode_enabled():
            return own(
                hidden_states,
                position_embeddings=position_embeddings,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                **options,
            )
        texts = hidden_states.shape[:-1]
        query = module.q_proj(hidden_states).view(*texts, -1, size)
        key = module.k_proj(hidden_states).view(*texts, -1, size)
        value = module.v_proj(hidden_states).view(*texts, -1, size)
        if relative.norms:
            query, key = module.q_norm(query), module.k_norm(key)
        query, key = rotate(query, key, *position_embeddings, unsqueeze_dim=2)
        function = interfaces.get_interface(module.config._attn_implementation, eager)
        output, weights = function(
            module,
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attention_mask,
            dropout=0.0,
            scaling=module.scaling,
            **relative.options(module),
            **options,
        )
        return module.o_proj(output.reshape(*texts, -1)), weights

    return forward
