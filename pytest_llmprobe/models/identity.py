"""Which model this is, beyond its name: what two runs are compared by."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from pytest_llmprobe.models.gguf import content_hash
from pytest_llmprobe.models.registry import ModelSpec
from pytest_llmprobe.models.text_tokenizer import tokenizer_hash

_WHOLE = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Whole numbers by the bytes of a value."""


def model_info(spec: ModelSpec, model: Any, tokenizer: Any) -> dict[str, Any]:
    """What the report says about a loaded model, in built-in types."""
    template = getattr(tokenizer, "chat_template", None)
    gpus = range(torch.cuda.device_count())
    return {
        **_origin(spec, model),
        "architecture": type(model).__name__,
        "fingerprint": fingerprint(model),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "attention": model.config._attn_implementation,
        "quantization": spec.quantization,
        "adapter": spec.adapter,
        "tokenizer_hash": tokenizer_hash(tokenizer),
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
    return {
        "source": "embedded" if spec.embedded else spec.source,
        "revision": getattr(model.config, "_commit_hash", None) or spec.revision,
    }


def fingerprint(model: Any) -> str:
    """16 hex digits that change with the weights: names, shapes, dtypes, sums, sampled values.

    All values of a tensor are added up as whole numbers, bit pattern by bit pattern, so a change of
    one single weight is seen; about 4,096 evenly spaced ones are hashed, which their order decides.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().reshape(-1)
        bits = flat.view(_WHOLE.get(flat.element_size(), torch.uint8))
        digest.update(str(_sum(bits)).encode())
        sample = flat[:: max(1, flat.numel() // 4096)].contiguous().cpu()
        digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _sum(bits: torch.Tensor) -> int:
    if bits.is_cpu:  # torch copies it into 64 bits first and takes eight times as long
        return int(bits.numpy().sum(dtype=np.int64))
    return int(bits.sum(dtype=torch.int64))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
