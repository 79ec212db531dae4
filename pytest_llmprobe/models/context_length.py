"""How many positions a model has, by its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONTEXT_LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length")


def context_length(config: Mapping[str, Any]) -> int | None:
    """Most tokens of prompt and answer together, or None if the config names no limit.

    Args:
        config: What config.json holds; of a model with several parts the text part counts.
    """
    inner = config.get("text_config")
    for part in (inner if isinstance(inner, Mapping) else {}, config):
        for name in CONTEXT_LENGTHS:
            if isinstance(length := part.get(name), int):
                return length
    return None
