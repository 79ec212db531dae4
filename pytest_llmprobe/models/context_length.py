"""How many positions a model has, by its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONTEXT_LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length")


def context_length(config: Mapping[str, Any]) -> int | None:
    """Most tokens of prompt and answer together, or None if config.json names no limit.

    Of a model with several parts the text part counts.
    """
    inner = config.get("text_config")
    for part in (inner if isinstance(inner, Mapping) else {}, config):
        for name in CONTEXT_LENGTHS:
            if isinstance(length := part.get(name), int):
                return length
    return None


def even_to(config: Any) -> int | None:
    """Tokens of a text up to which it is rotated alike whatever the longest text of its pass.

    Beyond, rotary embeddings of the kinds ``dynamic`` and ``longrope`` go by that longest text
    (transformers' ``modeling_rope_utils``). None if a model, by transformers' config of its text
    part, has no such embedding.
    """
    given = getattr(config, "rope_parameters", None) or {}
    limits = []
    for part in [given, *(part for part in given.values() if isinstance(part, Mapping))]:
        kind = str(part.get("rope_type", ""))
        if kind == "longrope" or "dynamic" in kind:
            own = part.get("original_max_position_embeddings")
            limits.append(own or config.max_position_embeddings)
    return min(limits, default=None)
