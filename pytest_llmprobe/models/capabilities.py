"""What a model can do, measured by a few short forward passes instead of looked up.

Flags of the library are no substitute: ``_can_set_attn_implementation()`` is true for Mamba, whose
attention does not exist, and false for models that do work.
"""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass
from typing import Any

import torch

from pytest_llmprobe.models.context_length import context_length
from pytest_llmprobe.models.kept_facts import KeptFacts

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
        left_padding: Pads before a prompt (after it, where an encoder reads it) do not change its
            last logits, so rows of different length may share a batch.
        cached_continuation: Several tokens fed onto a filled cache give the logits of one pass.
        hidden_states: Hidden states that a forward pass returns (embeddings included), 0 if none,
            and 0 of an encoder and decoder, which share none.
        encoder: An encoder reads the prompt, and a decoder says the answer: the context's length
            counts for each alone.
    """

    context_length: int | None
    chat_template: bool
    offsets: bool
    left_padding: bool
    cached_continuation: bool
    hidden_states: int
    encoder: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)

    @classmethod
    def remembered(cls, model: Any, tokenizer: Any, pad_id: int, kept: KeptFacts) -> Capabilities:
        """As ``measure``, or as it was measured before."""

        def found() -> dict[str, Any]:
            return measure(model, tokenizer, pad_id).as_dict()

        return cls(**kept.remembered("capabilities", found))


@torch.inference_mode()
def measure(model: Any, tokenizer: Any, pad_id: int) -> Capabilities:
    """Measure with forward passes of at most 11 tokens."""
    text_config = model.config.get_text_config(decoder=True)
    ids = (torch.arange(8, device=model.device)[None] * 7 + 5) % text_config.vocab_size
    if model.config.is_encoder_decoder:
        return _measured_encoder(model, tokenizer, ids, pad_id)
    states = model(ids, use_cache=False, output_hidden_states=True).hidden_states
    return Capabilities(
        context_length=context_length(text_config.to_dict()),
        chat_template=bool(getattr(tokenizer, "chat_template", None)),
        offsets=bool(tokenizer.is_fast),
        left_padding=_left_padding(model, ids, pad_id),
        cached_continuation=_cached_continuation(model, ids),
        hidden_states=len(states or ()),
    )


def _measured_encoder(model: Any, tokenizer: Any, ids: torch.Tensor, pad_id: int) -> Capabilities:
    pads = ids.new_full((1, 3), pad_id)
    mask = torch.cat([torch.ones_like(ids), torch.zeros_like(pads)], dim=1)
    said = {"decoder_input_ids": ids[:, :4]}
    alone = _last_logits(model, ids, attention_mask=torch.ones_like(ids), **said)
    padded = _last_logits(model, torch.cat([ids, pads], dim=1), attention_mask=mask, **said)
    return Capabilities(
        context_length=context_length(model.config.get_text_config(decoder=True).to_dict()),
        chat_template=bool(getattr(tokenizer, "chat_template", None)),
        offsets=bool(tokenizer.is_fast),
        left_padding=close(padded, alone, model.dtype),
        cached_continuation=False,
        hidden_states=0,
        encoder=True,
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
