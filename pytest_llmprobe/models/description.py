"""What is known of a model before it is loaded, from its small files: without its weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

from pytest_llmprobe.errors import CasesError, ModelError, RequestError
from pytest_llmprobe.models.chat_template import variables
from pytest_llmprobe.models.context_length import context_length, rope_kind
from pytest_llmprobe.models.folder_check import check_folder
from pytest_llmprobe.models.hub import check_hub
from pytest_llmprobe.models.kept_facts import KeptFacts
from pytest_llmprobe.models.local_packages import check_packages
from pytest_llmprobe.models.machine import check_machine
from pytest_llmprobe.models.registry import ModelSpec
from pytest_llmprobe.models.thinking import BUDGET, EFFORT, SWITCHES, said_in
from pytest_llmprobe.models.thought_marks import marks_in
from pytest_llmprobe.models.token_counter import TokenCounter

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "F32": 4, "F16": 2, "BF16": 2, "F64": 8}
"""Of a number, by the names of torch and of safetensors."""

OTHER_LAYERS = ("mamba", "rwkv", "recurrent", "conv", "linear_attention", "chunked")
"""Words in a config's kinds of layers or of models that keep a state, or see by other rules."""

OWN_ATTENTION = ("bloom", "codegen", "falcon", "gpt_neo", "gptj", "mpt")
"""Kinds of models whose attention does not go through transformers' interface for it."""


def how_run(packed: bool, encoder: bool, padded: bool, copied: bool = False) -> str:
    """How a model is run and why, in one sentence.

    Args:
        packed: Its layers attend to a tree of prompts as to each prompt alone.
        encoder: An encoder reads the prompt.
        padded: Pads do not change its answers.
        copied: Rows go on from copies of what it keeps of a shared prefix.
    """
    if packed:
        return "own decode loop, shared prefixes stored once: rows give the logits of each"
    why = "its layers keep a state, or have an attention of their own"
    if encoder:
        why = "an encoder reads the prompt"
    if not padded:
        return f"generate, one prompt at a time: {why}, and pads change its answers"
    if copied:
        return f"generate, shared prefixes computed once and copied to each row: {why}"
    return f"generate, padded batches: {why}"


def describe(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """What can be said of a model, a line at a time: what, and the words.

    Raises:
        ModelError: It cannot be loaded, as far as its files tell.
    """
    if spec.protocol is not None:
        yield "source", f"{spec.source}, behind {spec.base_url or 'its own server'}"
        yield "path", "requests to the server: white-box evaluations are skipped"
        return
    check_packages(spec)
    from pytest_llmprobe.models.weights import check_kind  # which imports transformers

    yield "source", _source(spec)
    if spec.folder is not None:
        check_folder(spec.folder)
    else:
        check_hub(spec)
    counter = TokenCounter(spec)
    try:
        config, template, tokens = counter.config, counter.template, counter.added_tokens
        arguments = variables(template) if template is not None else frozenset()
    except (CasesError, RequestError) as error:
        raise ModelError(f"model {spec.name!r} cannot be loaded: {error}") from None
    check_kind(spec, config)
    check_machine(spec)
    yield "loads as", _architecture(spec, config)
    yield "memory", _memory(spec, config)
    yield "context", _context(spec, config)
    yield "template", _template(template, arguments)
    yield "thoughts", _thoughts(template, tokens, arguments)
    yield "path", _path(spec, config)


def checkpoint_size(spec: ModelSpec) -> int | None:
    """Bytes of the files that hold the weights, None if they are not on this machine."""
    if spec.protocol is not None:
        return None
    try:
        if spec.package is not None or spec.gguf is not None:
            file = spec.gguf
            return None if file is None else file.stat().st_size
    except ModelError:  # not installed
        return None
    folder = _cached(spec) if spec.folder is None else spec.folder
    files = [] if folder is None else [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    return sum(file.stat().st_size for file in files) or None


def in_bytes(size: float) -> str:
    """A size as people read it: 538 MB, 1.2 GB."""
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5 or unit == "GB":
            return f"{size:.1f} {unit}" if size < 9.95 else f"{size:,.0f} {unit}"
    raise AssertionError


def _cached(spec: ModelSpec) -> Path | None:
    if find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(spec.source, "config.json", revision=spec.revision)
    return Path(config).parent if isinstance(config, str) else None


def _source(spec: ModelSpec) -> str:
    parts = [spec.source if spec.revision is None else f"{spec.source}@{spec.revision}"]
    if spec.embedded:
        parts = ["embedded"]
    if (file := spec.gguf) is not None:
        parts.append(f"{file.name}, dequantised in {spec.folder}")
    if spec.adapter is not None:
        parts.append(f"with the adapter {spec.adapter} merged")
    return ", ".join(parts)


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def _tensors(spec: ModelSpec) -> dict[str, tuple[str, int]]:
    """Type and count of numbers of each tensor, from the headers of the safetensors files."""
    folder = _cached(spec) if spec.folder is None else spec.folder
    found = {}
    for path in sorted(folder.glob("*.safetensors")) if folder is not None else ():
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                found[name] = (tensor["dtype"], prod(tensor["shape"]))
    return found


def _architecture(spec: ModelSpec, config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else "no architecture named"
    words = [f"{name} ({config.get('model_type')})"]
    if tensors := _tensors(spec):
        kinds = " and ".join(sorted({kind for kind, _ in tensors.values()}))
        numbers = sum(count for _, count in tensors.values())
        words.append(f"{numbers:,} numbers in {len(tensors)} tensors of {kinds}")
    else:
        words.append("weights not on this machine")
    method = config.get("quantization_config")
    if isinstance(method, Mapping):
        words.append(f"quantised with {method.get('quant_method')}")
    elif spec.quantization is not None:
        words.append(f"to be quantised: {spec.quantization}")
    return ", ".join(words)


def _memory(spec: ModelSpec, config: Mapping[str, Any]) -> str:
    tensors, quantised = _tensors(spec), config.get("quantization_config") or spec.quantization
    if spec.dtype == "auto":
        on_cpu, width = "float32 on a CPU, as stored elsewhere", 4
    else:
        on_cpu, width = spec.dtype, BYTES.get(spec.dtype, 4)
    words = []
    if tensors and quantised:
        words.append(f"{in_bytes(checkpoint_size(spec) or 0)} of weights as stored")
    elif tensors:
        numbers = sum(count for _, count in tensors.values())
        words.append(f"{in_bytes(width * numbers)} of weights ({on_cpu})")
    text = _text(config)
    heads, layers = text.get("num_attention_heads"), text.get("num_hidden_layers")
    hidden = text.get("hidden_size")
    if isinstance(heads, int) and isinstance(layers, int) and isinstance(hidden, int) and heads:
        kept = text.get("num_key_value_heads") or heads
        each = 2 * layers * kept * (text.get("head_dim") or hidden // heads) * width
        words.append(f"up to {in_bytes(1000 * each)} of keys and values for 1,000 tokens")
    return ", ".join(words) or "unknown"


def _context(spec: ModelSpec, config: Mapping[str, Any]) -> str:
    if spec.context is not None:
        return f"{spec.context:,} tokens, as asked for"
    length = context_length(config)
    if length is None:
        return "no limit in config.json"
    kind = rope_kind(_text(config))
    return f"{length:,} tokens" + (f", rotary embeddings stretched by {kind}" if kind else "")


def _template(template: str | None, arguments: frozenset[str]) -> str:
    if template is None:
        return "none: prompts are texts to be continued"
    return f"yes; arguments: {', '.join(sorted(arguments)) or 'none'}"


def _thoughts(template: str | None, tokens: list[str], arguments: frozenset[str]) -> str:
    marks = marks_in(template or "", tokens)
    words = [f"{mark.open} to {mark.close}" for mark in marks] or ["no marks known"]
    switches = [name for name in (*SWITCHES, EFFORT, BUDGET) if name in arguments]
    switches = switches or [word for words in said_in(template or "").values() for word in words]
    if switches:
        words.append(f"switched with {', '.join(switches)} (off unless --llmprobe-thinking on)")
    return ", ".join(words)


def _path(spec: ModelSpec, config: Mapping[str, Any]) -> str:
    """As it was measured when the model was loaded, or else as its config lets one expect."""
    measured = {
        how_run(
            found["packed_rows"],
            each["encoder"],
            each["left_padding"],
            found.get("copied_prefixes", False),
        )
        for found in KeptFacts.of_spec(spec).known().values()
        if "packed_rows" in found and isinstance(each := found.get("capabilities"), dict)
    }
    if len(measured) == 1:
        return f"{measured.pop()} (measured)"
    encoder = bool(config.get("is_encoder_decoder"))
    run = how_run(not encoder and expects_packed(_text(config)), encoder, padded=True)
    return f"{run} (expected by its config; measured when it is loaded)"


def expects_packed(config: Mapping[str, Any]) -> bool:
    """Whether all layers of a decoder keep keys of tokens, as far as its config says."""
    kind = str(config.get("model_type"))
    kinds = " ".join(map(str, (config.get("layer_types") or (), kind)))
    chunked = config.get("attention_chunk_size") and not config.get("layer_types")
    state = any(key.startswith(("mamba_", "ssm_")) and value for key, value in config.items())
    own = kind in OWN_ATTENTION or any(word in kinds for word in OTHER_LAYERS)
    return not (chunked or state or own)
