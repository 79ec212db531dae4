"""What a model can do, measured by a few short forward passes instead of looked up.

Flags of the library are no substitute: ``_can_set_attn_implementation()`` is true for Mamba, whose
attention does not exist, and false for models that do work.
"""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from pytest_llmprobe.models.context_length import context_length

TOLERANCE, ROUNDINGS = 1e-3, 10
"""Largest difference of logits, relative to the largest logit, that counts as equal; in fewer than
32 bits as many roundings of the dtype. A mask or a position that is wrong makes far more."""


@dataclass(frozen=True)
class Capabilities:
    """Measured on one loaded model.

    Args:
        context_length: Most positions, or None if the config names no limit.
        chat_template: The tokenizer renders chat messages.
        offsets: The tokenizer maps tokens to characters.
        left_padding: Pads before a prompt do not change its last logits, so rows of different
            length may share a batch.
        cached_continuation: Several tokens fed onto a filled cache give the logits of one pass.
        packed_rows: Rows packed into one sequence under a mask give the logits that each gives
            alone, so a shared prefix can be stored once.
        hidden_states: Hidden states that a forward pass returns (embeddings included), 0 if none.
    """

    context_length: int | None
    chat_template: bool
    offsets: bool
    left_padding: bool
    cached_continuation: bool
    packed_rows: bool
    hidden_states: int

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


@torch.inference_mode()
def measure(model: Any, tokenizer: Any, pad_id: int) -> Capabilities:
    """Measure with forward passes of at most 11 tokens."""
    text_config = model.config.get_text_config()
    ids = (torch.arange(8, device=model.device)[None] * 7 + 5) % text_config.vocab_size
    return Capabilities(
        context_length=context_length(text_config.to_dict()),
        chat_template=bool(getattr(tokenizer, "chat_template", None)),
        offsets=bool(tokenizer.is_fast),
        left_padding=_left_padding(model, ids, pad_id),
        cached_continuation=_cached_continuation(model, ids),
        packed_rows=_packed_rows(model, ids),
        hidden_states=_hidden_states(model, ids),
    )


def close(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether logits of a model of a dtype agree but for rounding."""
    tolerance = max(TOLERANCE, ROUNDINGS * torch.finfo(dtype).eps)
    return bool((a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1))


def _last_logits(model: Any, ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
    logits: torch.Tensor = model(ids, use_cache=False, **inputs).logits
    return logits[:, -1].float()


def _left_padding(model: Any, ids: torch.Tensor, pad_id: int) -> bool:
    pads = ids.new_full((1, 3), pad_id)
    mask = torch.cat([torch.zeros_like(pads), torch.ones_like(ids)], dim=1)
    inputs: dict[str, torch.Tensor] = {"attention_mask": mask}
    if "position_ids" in inspect.signature(model.forward).parameters:
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    alone = _last_logits(model, ids, attention_mask=torch.ones_like(ids))
    padded = _last_logits(model, torch.cat([pads, ids], dim=1), **inputs)
    return close(padded, alone, model.dtype)


def _cached_continuation(model: Any, ids: torch.Tensor) -> bool:
    parameters = inspect.signature(model.forward).parameters
    name = next((n for n in ("past_key_values", "cache_params") if n in parameters), None)
    if name is None:
        return False
    first = model(ids[:, :5], use_cache=True)
    if (cache := first.get(name)) is None:
        return False
    try:
        logits = model(ids[:, 5:], use_cache=True, **{name: cache}).logits[:, -1].float()
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False  # several state-space models refuse more than one token here
    return close(logits, _last_logits(model, ids), model.dtype)


def packed_mask(model: Any, mask: torch.Tensor) -> torch.Tensor:
    """A mask (T, S), true where a token attends, as the model takes it: (1, 1, T, S).

    Eager attention adds its mask to the scores; the others take booleans.
    """
    if model.config._attn_implementation == "eager":
        mask = torch.zeros(mask.shape, dtype=model.dtype, device=mask.device).masked_fill(
            ~mask, torch.finfo(model.dtype).min
        )
    return mask[None, None]


def _packed_rows(model: Any, ids: torch.Tensor) -> bool:
    """Two continuations of one prefix in one sequence, against each alone.

    Layers that keep only a window, or a state instead of keys, are told by their cache: a window
    may be longer than what can be tried here.
    """
    parameters = inspect.signature(model.forward).parameters
    if not {"past_key_values", "position_ids", "logits_to_keep"} <= set(parameters):
        return False
    cache = DynamicCache(config=model.config)
    if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return False
    first, second = ids[:, 4:6], ids[:, 6:8].flip(1)
    sees = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]], device=ids.device)
    mask = torch.cat([torch.ones_like(sees), sees], dim=1).bool()
    try:
        model(ids[:, :4], past_key_values=cache, use_cache=True)
        packed = model(
            torch.cat([first, second], dim=1),
            attention_mask=packed_mask(model, mask),
            position_ids=torch.tensor([[4, 5, 4, 5]], device=ids.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=torch.tensor([1, 3], device=ids.device),
        ).logits[0]
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError):
        return False
    alone = [_last_logits(model, torch.cat([ids[:, :4], end], dim=1)) for end in (first, second)]
    return close(packed.float(), torch.cat(alone), model.dtype)


def _hidden_states(model: Any, ids: torch.Tensor) -> int:
    return len(model(ids, use_cache=False, output_hidden_states=True).hidden_states or ())
