"""A PEFT adapter on its base: merged, so that everything after it sees a plain model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from safetensors import safe_open

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.local_files import read_adapter


def with_adapter(model: Any, folder: str, tokens: int) -> Any:
    """The model with an adapter's weights in its own.

    Args:
        model: The base.
        folder: Of the adapter.
        tokens: Of the tokenizer; an adapter that was trained with more than its base has brings
            their embeddings, too.

    Raises:
        ModelError: The package ``peft`` is not installed, or the adapter is not one of this base.
    """
    config = read_adapter(Path(folder))
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ImportError:
        raise ModelError(
            f"{folder} is a PEFT adapter: run `pip install 'pytest-llmprobe[peft]'`, or merge it "
            "into its base"
        ) from None
    with safe_open(Path(folder) / "adapter_model.safetensors", framework="pt") as file:
        held = set(file.keys())
    if (
        any("embed" in name for name in held)
        and tokens > model.get_input_embeddings().weight.shape[0]
    ):
        model.resize_token_embeddings(tokens)
    try:
        with warnings.catch_warnings():  # weights that are missing are looked for below
            warnings.simplefilter("ignore")
            wrapped = PeftModel.from_pretrained(model, folder)
    except Exception as error:
        first = str(error).strip().partition("\n")[0][:500]
        raise ModelError(
            f"the adapter {folder} does not fit its base: {type(error).__name__}: {first}"
        ) from error
    kind = config.get("peft_type")
    if not hasattr(wrapped.base_model, "merge_and_unload"):
        raise ModelError(
            f"the adapter {folder} is a {kind}, which cannot be merged into its base's weights"
        )
    own = set(get_peft_model_state_dict(wrapped))
    if strange := sorted(own ^ held):
        where = "fits nothing in the base" if strange[0] in held else "is not in the adapter"
        raise ModelError(
            f"the adapter {folder} does not fit its base: {len(strange)} tensors, {strange[0]} "
            f"first, which {where}"
        )
    return wrapped.merge_and_unload()
