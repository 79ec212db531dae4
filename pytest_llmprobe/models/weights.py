"""A checkpoint's weights into its model: all of them, or one sentence that names what is missing.

transformers fills what a checkpoint lacks with random numbers and warns in its log. A model that
was loaded so would be judged as if it were the user's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.registry import ModelSpec

WRAPPERS = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning Fabric",
    "module": "DataParallel or DeepSpeed",
    "base_model.model": "PEFT",
}
"""What tools put into the names of the weights that they wrap, and who does."""

_WRAPPED = re.compile(r"(?<![^.])(?:" + "|".join(map(re.escape, WRAPPERS)) + r")\.")

_NO_LANGUAGE_MODEL = re.compile(
    "For(?:SequenceClassification|TokenClassification|MultipleChoice|QuestionAnswering|MaskedLM"
    "|Reward|RewardModel)$|RewardModel$"
)
"""Architectures of folders whose weights may fit a language model's and are not one's."""

_HALF_READ = {
    re.compile(r"(?:^|\.)(?:weight_scale\w*|weight\._scale|scales|SCB|absmax|quant_map|qzeros)$"): (
        "are the scales of quantised weights, which are wrong without: config.json has no "
        "quantization_config. Save it with the tool that quantised it, or serve it with what reads "
        "it and use openai:NAME"
    ),
    re.compile(r"(?:^|\.)lora_(?:[ABE]|embedding_[AB]|magnitude_vector)(?:\.|$)"): (
        "are an adapter's, which would be left out. Merge it and save the whole model, or give the "
        "adapter's folder with --llmprobe-adapter"
    ),
}
"""Tensors without which those beside them are another model's, and why."""

SHOWN = 3
"""Names that an error lists, and eight times as many in a report."""


def load_weights(
    spec: ModelSpec, arguments: Mapping[str, Any], origin: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The model with all its weights, and what the report says of how they were read.

    Names that a wrapper left its mark on are read without it.

    Args:
        spec: What is loaded.
        arguments: How, for ``from_pretrained``.
        origin: Revision and whether remote code may run.

    Raises:
        ModelError: It is no causal language model, or weights are missing.
    """
    config = AutoConfig.from_pretrained(spec.location, **origin)
    check_kind(spec, config.to_dict())
    load = partial(_load, model_class(config), spec, arguments, origin)
    model, found = load()
    notes: dict[str, Any] = {}
    if found["missing_keys"] and any(map(_WRAPPED.search, found["unexpected_keys"])):
        wrappers = {
            match[0].rstrip(".")
            for name in found["unexpected_keys"]
            for match in _WRAPPED.finditer(name)
        }
        notes["unwrapped"] = [f"{name} ({WRAPPERS[name]})" for name in sorted(wrappers)]
        del model  # two of them may not fit into memory
        mapping = dict.fromkeys(map(_prefix, sorted(wrappers)), "")
        model, found = load(key_mapping=mapping)
    missing, unexpected = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    if missing:
        raise ModelError(_lacks(spec, len(model.state_dict()), missing, unexpected))
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        _refuse_half_read(spec, unexpected)
    elif getattr(model, "hf_quantizer", None) is None:
        # Only what was stored in fewer bits is bfloat16 now: it would be multiplied by float32.
        dtype = arguments["dtype"]
        model = model.to(getattr(torch, dtype) if dtype != "auto" else model.dtype)
        notes["dequantized"] = str(config.to_dict()["quantization_config"]["quant_method"])
    if unexpected:
        notes["unused"] = {"n": len(unexpected), "first": unexpected[: 8 * SHOWN]}
    return model, notes


def model_class(config: Any) -> Any:
    """What loads a language model: a decoder alone, or an encoder with one (T5, BART)."""
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _load(
    kind: Any, spec: ModelSpec, arguments: Mapping[str, Any], origin: Mapping[str, Any], **more: Any
) -> tuple[Any, dict[str, Any]]:
    options = {**arguments, **origin, **more, "output_loading_info": True}
    with _without_table():
        # Sizes that do not match are told below, and not in a table.
        both: Any = kind.from_pretrained(spec.location, ignore_mismatched_sizes=True, **options)
    model, found = both
    if mismatched := sorted(found["mismatched_keys"]):
        name, stored, expected = mismatched[0]
        raise ModelError(
            f"model {spec.name!r} cannot be loaded: {len(mismatched)} of its tensors have another "
            f"size than config.json says, {name} first: {tuple(stored)}, and not {tuple(expected)}"
        )
    return model, found


@contextmanager
def _without_table() -> Iterator[None]:
    """A block in which transformers prints no table of keys; what is in it is said elsewhere."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_no_table)  # at a higher level it would say more instead
    try:
        yield
    finally:
        logger.removeFilter(_no_table)


def _no_table(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def _prefix(wrapper: str) -> str:
    return rf"(?<![^.]){re.escape(wrapper)}\."


def check_kind(spec: ModelSpec, config: Mapping[str, Any]) -> None:
    """Find out by its config.json whether a model generates text.

    Raises:
        ModelError: transformers knows it as another kind of model, or not at all.
    """
    kind, architectures = config.get("model_type"), config.get("architectures") or ()
    decoders, encoders = (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )
    encoder = config.get("is_encoder_decoder", kind in encoders and kind not in decoders)
    known = kind in (encoders if encoder else decoders)
    if not known and not (spec.trust_remote_code and "auto_map" in config):
        raise ModelError(
            f"model {spec.name!r} cannot be evaluated: transformers {transformers.__version__} "
            f"knows {kind} ({', '.join(architectures) or 'no architecture named'}) "
            "as no language model that generates"
        )
    strange = next(filter(_NO_LANGUAGE_MODEL.search, architectures), None)
    both_ways = (
        kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        and kind in decoders
        and not config.get("is_decoder")
        and not encoder
    )
    if strange or (both_ways and not any("CausalLM" in name for name in architectures)):
        what = strange or f"{kind}, which reads in both directions"
        raise ModelError(
            f"model {spec.name!r} cannot be evaluated: its config.json says {what}, and that is no "
            "causal language model"
        )


def _lacks(spec: ModelSpec, tensors: int, missing: list[str], unexpected: list[str]) -> str:
    """One sentence: what is missing, what is there instead, and what to do."""
    instead = f"; it holds {_some(unexpected)} instead" if unexpected else ""
    return (
        f"model {spec.name!r} cannot be loaded: {len(missing)} of its {tensors} tensors are not in "
        f"the checkpoint ({_some(missing)}) and would be random{instead}. Save it with "
        "save_pretrained of the unwrapped model, adapters merged"
    )


def _refuse_half_read(spec: ModelSpec, unexpected: list[str]) -> None:
    for names, why in _HALF_READ.items():
        if found := [name for name in unexpected if names.search(name)]:
            raise ModelError(
                f"model {spec.name!r} cannot be loaded: {len(found)} of the checkpoint's tensors "
                f"({_some(found)}) {why}"
            )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
