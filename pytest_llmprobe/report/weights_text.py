"""How a checkpoint's weights were read, in lines for a person, where it was not as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_llmprobe.report.terminal import printable

SHOWN = 3
"""Names of tensors in a line."""


def weights_lines(info: Mapping[str, Any]) -> list[str]:
    """Names that were read as others, and tensors that were not read.

    Args:
        info: The report's ``model_info``.
    """
    read = info.get("weights") or {}
    lines = []
    if unwrapped := read.get("unwrapped"):
        lines.append(f"weights: their names are read without {', '.join(unwrapped)}")
    if method := read.get("dequantized"):
        lines.append(f"weights: stored as {method}, dequantised, as this device cannot use them so")
    if unused := read.get("unused"):
        names = ", ".join(unused["first"][:SHOWN])
        more = f" and {unused['n'] - SHOWN} more" if unused["n"] > SHOWN else ""
        lines.append(
            f"weights: the model has no place for {unused['n']} tensors of the checkpoint, which "
            f"are unused: {names}{more}"
        )
    return [printable(line) for line in lines]
