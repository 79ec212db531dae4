"""How many positions a model has, by its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONTEXT_LENGTHS = (
    *("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_length"),
    *("max_seq_len", "seq_length", "seq_len", "max_target_positions"),
)
"""Names of the length in configs: most models', GPT-2's ... MPT's, ChatGLM's, Whisper's. Of several
the least counts."""

OVERRIDING = "model_max_length"
"""Its name in Command R's configs, which counts whatever the others say."""

UNSTRETCHED = ("default", "llama3", "longrope", "su")
"""Kinds of rotary embeddings whose configs name the length with the factor in it."""


def context_length(config: Mapping[str, Any]) -> int | None:
    """Most tokens of prompt and answer together, or None if config.json names no limit.

    Of a model with several parts the text part counts. Where rotary embeddings are stretched by a
    factor (linear, dynamic, yarn ...) it is multiplied, as vLLM derives the length of a model.
    vLLM ends a longrope model where its short factors do unless it is told otherwise; transformers
    goes on, and so does this.
    """
    inner = config.get("text_config")
    for part in (inner if isinstance(inner, Mapping) else {}, config):
        found = [part[name] for name in CONTEXT_LENGTHS if _is_length(part.get(name))]
        if _is_length(own := part.get(OVERRIDING)):
            found = [own]
        if found:
            return _stretched(min(found), part)
    return None


def _is_length(value: object) -> bool:
    return isinstance(value, int) and value > 0


def _stretched(length: int, config: Mapping[str, Any]) -> int:
    if "gemma3" in str(config.get("model_type")):  # its factor is in the length already
        return length
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        return length
    factor = 1.0
    for part in [given, *(part for part in given.values() if isinstance(part, Mapping))]:
        kind, by = part.get("rope_type", part.get("type")), part.get("factor")
        if kind in (None, *UNSTRETCHED) or not isinstance(by, int | float):
            continue
        factor = float(by)
        if kind == "yarn":
            length = part.get("original_max_position_embeddings") or length
    return int(length * factor)


def rope_kind(config: Mapping[str, Any]) -> str | None:
    """How rotary embeddings are stretched, such as ``yarn``; None if they are not."""
    given = config.get("rope_parameters") or config.get("rope_scaling")
    kind = given.get("rope_type", given.get("type")) if isinstance(given, Mapping) else None
    return None if kind in (None, "default") else str(kind)


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


def is_turned(model: Any, tokens: int) -> bool:
    """Whether a pass of so many tokens rotates all of them otherwise than a shorter one would."""
    limit = even_to(model.config.get_text_config(decoder=True))
    return limit is not None and tokens > limit


def forget_longest(model: Any) -> None:
    """Rotate what comes as if nothing had come before.

    Rotary embeddings of the kind ``dynamic`` remember the longest text that they were given, and
    rotate by it until a text comes that is shorter than their limit (transformers'
    ``dynamic_rope_update``).
    """
    if even_to(model.config.get_text_config(decoder=True)) is None:
        return
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        by_layer = kinds if isinstance(kinds, Mapping) else {"": kinds}
        for layer, kind in by_layer.items():
            if "dynamic" in str(kind):
                prefix = f"{layer}_" if layer else ""
                now, first = f"{prefix}inv_freq", getattr(module, f"{prefix}original_inv_freq")
                setattr(module, now, first.to(getattr(module, now).device))
                setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
