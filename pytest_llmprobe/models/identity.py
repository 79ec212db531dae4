"""Which model this is, beyond its name: what two runs are compared by."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Any

import torch

from pytest_llmprobe.models.config_facts import adapter_facts, config_facts
from pytest_llmprobe.models.fingerprint import fingerprint
from pytest_llmprobe.models.gguf import content_hash
from pytest_llmprobe.models.kept_facts import KeptFacts
from pytest_llmprobe.models.registry import ModelSpec
from pytest_llmprobe.models.text_tokenizer import tokenizer_hash


def model_info(spec: ModelSpec, model: Any, tokenizer: Any, kept: KeptFacts) -> dict[str, Any]:
    """What the report says about a loaded model, in built-in types."""
    template = getattr(tokenizer, "chat_template", None)
    gpus = range(torch.cuda.device_count())
    return {
        **_origin(spec, model),
        "architecture": type(model).__name__,
        "fingerprint": kept.remembered("fingerprint", lambda: fingerprint(model)),
        "config": config_facts(model.config.to_dict()),
        "adapters": adapter_facts(spec.adapter),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "attention": model.config._attn_implementation,
        "quantization": spec.quantization,
        "tokenizer_hash": kept.remembered("tokenizer", lambda: tokenizer_hash(tokenizer)),
        "chat_template_hash": None if template is None else _hash(str(template)),
        "accelerators": [torch.cuda.get_device_name(gpu) for gpu in gpus],
    }


def _origin(spec: ModelSpec, model: Any) -> dict[str, Any]:
    if (file := spec.gguf) is not None:  # what was named, and not where it was read into
        content = f"sha256 {content_hash(file)}"
        if spec.package is None:
            return {"source": spec.source, "revision": content}
        return {
            "source": f"{spec.source}/{file.name}",
            "revision": f"{version(spec.package)}, {content}",
        }
    if spec.in_memory:  # whatever it was loaded from, it may have been trained since
        return {"source": spec.source, "revision": None}
    return {
        "source": "embedded" if spec.embedded else spec.source,
        "revision": getattr(model.config, "_commit_hash", None) or spec.revision,
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
