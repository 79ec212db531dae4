"""Weights of fewer bits: what is asked for, and what a checkpoint has; checked before loading."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.registry import ModelSpec


@dataclass(frozen=True)
class Way:
    """One way of quantising weights when they are loaded.

    Args:
        package: What computes it.
        cpu: Whether it does so on a CPU, too.
    """

    package: str
    cpu: bool = True


WAYS = {
    "nf4": Way("bitsandbytes"),
    "int8": Way("bitsandbytes"),
    "int8wo": Way("torchao"),
    "int4wo": Way("torchao", cpu=False),
    "4bit": Way("bitsandbytes"),
    "8bit": Way("bitsandbytes"),
}
"""By what a user calls it; ``4bit`` is nf4 and ``8bit`` is int8."""


def check_quantization(spec: ModelSpec, device: str) -> None:
    """Find out before any weight is read whether a model can be quantised, or read as it is.

    Args:
        spec: The model.
        device: Where it is to be: ``cpu``, ``cuda:0`` ...

    Raises:
        ModelError: A package is absent, the device cannot do it, or the checkpoint is quantised
            already; names the remedy.
    """
    method = _of_checkpoint(spec)
    if spec.quantization is None:
        if method is not None:
            _check_checkpoint(spec, method)
        return
    asked = f"--llmprobe-quantization {spec.quantization}"
    if method is not None:
        raise ModelError(
            f"{asked}: {spec.name!r} is quantised already ({method['quant_method']}), leave the "
            "option out"
        )
    way = WAYS[spec.quantization]
    if find_spec(way.package) is None:
        raise ModelError(
            f"{asked} needs the package {way.package}, which is absent: pip install {way.package}"
        )
    if device.partition(":")[0] == "cpu" and not way.cpu:
        raise ModelError(f"{asked} needs a GPU, and the device is cpu: use int8wo, int8 or nf4")


def quantization_config(name: str) -> Any:
    """Transformers' config of a way of quantising.

    nf4 is with double quantisation and bfloat16 to compute in, as QLoRA has it (Dettmers et al.
    2023) and the experiments of GUIDE do.
    """
    import torch
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if name in ("nf4", "4bit"):
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    if name in ("int8", "8bit"):
        return BitsAndBytesConfig(load_in_8bit=True)
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig() if name == "int8wo" else Int4WeightOnlyConfig())


def _of_checkpoint(spec: ModelSpec) -> dict[str, Any] | None:
    """How a local checkpoint is quantised; on the hub it is found out when it is there."""
    folder = spec.folder
    if folder is None:
        return None
    try:
        config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # whoever reads the folder says what is wrong with it
        return None
    found = config.get("quantization_config") if isinstance(config, dict) else None
    return found if isinstance(found, dict) and found.get("quant_method") else None


def _check_checkpoint(spec: ModelSpec, method: dict[str, Any]) -> None:
    """Ask transformers' own loader of the method whether this machine has what it needs."""
    import transformers
    from transformers.quantizers.auto import AutoHfQuantizer

    name = method["quant_method"]
    try:
        quantizer = AutoHfQuantizer.from_config(dict(method), pre_quantized=True)
        quantizer.validate_environment(device_map=spec.device_map, weights_only=True)
    except Exception as error:
        why = " ".join(str(error).split())
        if isinstance(error, ModuleNotFoundError):
            why += f". Install what reads it: pip install {name}"
        elif "unknown quantization" in why.lower():
            why = f"transformers {transformers.__version__} does not know that method"
        raise ModelError(
            f"{spec.name!r} is quantised with {name} and cannot be loaded here: {why[:500]}. A "
            "server that reads it can be asked instead: openai:NAME"
        ) from None
