"""Whether this machine has what a model is to be loaded with, before any case."""

from __future__ import annotations

from importlib.util import find_spec

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.quantization import check_quantization
from pytest_llmprobe.models.registry import ModelSpec

PACKAGES = {
    "attn_implementation": {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_3"},
}
"""Packages that a way of loading needs, by field and value."""


def check_machine(spec: ModelSpec) -> None:
    """Find out without the model whether its device and its packages are there.

    Raises:
        ModelError: Names what is missing.
    """
    for field, packages in PACKAGES.items():
        package = packages.get(str(getattr(spec, field)))
        if package is not None and find_spec(package) is None:
            raise ModelError(
                f"{field} {getattr(spec, field)} needs the package {package}, which is absent"
            )
    if spec.quantization is not None or spec.folder is not None:
        check_quantization(spec, _device_of(spec) if spec.quantization else "cpu")
    if spec.device not in ("auto", "cpu"):
        _check_device(spec.device)


def _device_of(spec: ModelSpec) -> str:
    """Where the model will be, as far as it matters to a way of quantising."""
    import torch

    if spec.device != "auto":
        return spec.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _check_device(name: str) -> None:
    import torch

    try:
        device = torch.device(name)
    except (RuntimeError, ValueError):
        raise ModelError(
            f"device {name!r} is none: cpu, cuda, cuda:1, mps, or auto for the best there is"
        ) from None
    there = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }.get(device.type)
    if there is not None and (device.index or 0) >= there:
        raise ModelError(f"device {name!r} is not there: this machine has {there} of {device.type}")
