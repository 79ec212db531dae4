"""Which of a model's layers see a window of the text only."""

from __future__ import annotations

from typing import Any

from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer


def layer_windows(model: Any) -> dict[int, int] | None:
    """By number of the layer the tokens that it sees, its own included.

    Layers that see all are left out. None where layers keep states, or see by other rules.
    """
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None)
    chunked = getattr(config, "attention_chunk_size", None) if kinds is None else None
    if chunked or "chunked_attention" in (kinds or ()):  # its cache is that of a window
        return None
    layers = DynamicCache(config=model.config).layers
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return None
    return {
        number: int(layer.sliding_window)
        for number, layer in enumerate(layers)
        if isinstance(layer, DynamicSlidingWindowLayer)
    }
