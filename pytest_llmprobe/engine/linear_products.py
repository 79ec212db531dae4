"""Ways to multiply by the weight of a linear layer: torch's own, and two on copies of it.

torch's reads a weight as it lies in memory, which is slow for few rows. oneDNN's copy is the weight
in another order. FBGEMM's holds each weight in 16 bits and widens it to float32 again within the
product: half of the bytes are read. Only weights that 16 bits hold are copied so, as those of a
checkpoint in bfloat16 or float16 are; the products are in float32 as ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

Product: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Of texts (..., inputs) with one layer's weight, its bias added: (..., outputs)."""

MANY_ROWS = 8
"""Rows that oneDNN's order of a weight is made for."""

LARGEST_HALF = 2.0**15
"""Power of two below the largest float16."""

MOST_SCALED = 30
"""Exponent of a scale at most, so that the scaled products are far from the largest float32."""

ROUNDING = 2.0**-24
"""Of the largest weight, the error of another that float32 would lose in the sum anyway."""


def can_be_copied(layer: Any) -> bool:
    """A linear layer as it comes: no subclass, nothing put in its place, an ordinary weight."""
    if type(layer) not in (nn.Linear, Conv1D) or "forward" in vars(layer):
        return False
    weight = layer.weight
    plain = type(weight) is nn.Parameter and not weight.is_inference()
    if not plain or weight.device.type != "cpu":
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(weight.dtype == torch.float32)


def inputs_of(layer: Any) -> int:
    """Numbers that a row has before the layer."""
    size: int = layer.weight.shape[0 if isinstance(layer, Conv1D) else 1]
    return size


def own(layer: Any) -> Product:
    """The layer's own product, for whoever has put another one in its place."""
    return partial(type(layer).forward, layer)


def reordered(layer: Any) -> Product:
    """OneDNN's product by its own copy of the weight."""
    packed = torch.ops.mkldnn._reorder_linear_weight(_by_output(layer), MANY_ROWS)
    product, bias = torch.ops.mkldnn._linear_pointwise.default, layer.bias
    return lambda rows: product(rows, packed, bias, "none", [], "")


def in_half(layer: Any) -> Product | None:
    """FBGEMM's product by a copy of 16 bits a weight; None if they would not hold the weights.

    Scaled by a power of two, which changes no digit, the weights are where float16 is dense.
    """
    there = "fbgemm" in torch.backends.quantized.supported_engines
    if layer.weight.dtype != torch.float32 or not there:
        return None
    weight = _by_output(layer)
    top = weight.abs().amax()
    if not 0 < top < torch.inf:
        return None
    _, exponent = math.frexp(LARGEST_HALF / float(top))
    scale = 2.0 ** min(exponent - 1, MOST_SCALED)
    scaled = weight * scale
    if (scaled.half().float() - scaled).abs().amax() > ROUNDING * scale * top:
        return None
    bias = None if layer.bias is None else layer.bias.detach() * scale
    packed = torch.ops.quantized.linear_prepack_fp16(scaled, bias)
    product, back = torch.ops.quantized.linear_dynamic_fp16.default, 1 / scale
    return lambda rows: product(rows, packed).mul_(back)


def _by_output(layer: Any) -> torch.Tensor:
    """(outputs, inputs)."""
    weight: torch.Tensor = layer.weight.detach()
    return weight.t().contiguous() if isinstance(layer, Conv1D) else weight
