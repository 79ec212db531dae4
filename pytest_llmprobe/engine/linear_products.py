"""Ways to multiply by the weights of linear layers: torch's own, and two on copies of them.

torch's reads a weight as it lies in memory, which is slow for few rows. oneDNN's copy is the weight
in another order. FBGEMM's holds each weight in 16 bits and widens it to float32 again within the
product: half of the bytes are read. Only weights that 16 bits hold are copied so, as those of a
checkpoint in bfloat16 or float16 are; the products are in float32 as ever. A processor without
instructions for a model's own 16 bits takes several times as long for them as for float32, so
there such a model multiplies by these copies, too. The copies of layers that are given the same
input are one: their outputs are one product's, side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, TypeAlias

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

Product: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Of texts (..., inputs) with the layers' weights, biases added: (..., outputs of all)."""

MANY_ROWS = 8
"""Rows that oneDNN's order of a weight is made for."""

LARGEST_HALF = 2.0**15
"""Power of two below the largest float16."""

MOST_SCALED = 30
"""Exponent of a scale at most, so that the scaled products are far from the largest float32."""

ROUNDING = 2.0**-24
"""Of the largest weight, the error of another that float32 would lose in the sum anyway."""


@cache
def is_widened(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies numbers of 16 bits faster once they are in float32.

    It does where it has no instructions for them, as before AVX512-BF16, AVX512-FP16 and AMX.
    """
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return False
    if dtype == torch.bfloat16:
        return not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return dtype == torch.float16 and not torch.ops.mkldnn._is_mkldnn_fp16_supported()


def can_be_copied(layer: Any) -> bool:
    """A linear layer as it comes: no subclass, nothing put in its place, an ordinary weight."""
    if type(layer) not in (nn.Linear, Conv1D) or "forward" in vars(layer):
        return False
    weight = layer.weight
    plain = type(weight) is nn.Parameter and not weight.is_inference()
    if not plain or weight.device.type != "cpu":
        return False
    if weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return True
    return bool(weight.dtype == torch.float32) or is_widened(weight.dtype)


def inputs_of(layer: Any) -> int:
    """Numbers that a row has before the layer."""
    size: int = layer.weight.shape[0 if isinstance(layer, Conv1D) else 1]
    return size


def outputs_of(layer: Any) -> int:
    """Numbers that a row has after the layer."""
    size: int = layer.weight.shape[1 if isinstance(layer, Conv1D) else 0]
    return size


def own(layers: Sequence[Any]) -> Product:
    """The layers' own products, for whoever has put another one in their place."""
    each = [partial(type(layer).forward, layer) for layer in layers]
    if len(each) == 1:
        return each[0]
    return lambda rows: torch.cat([product(rows) for product in each], dim=-1)


def reordered(layers: Sequence[Any]) -> Product:
    """OneDNN's product by its own copy of the weights."""
    packed = torch.ops.mkldnn._reorder_linear_weight(_by_output(layers), MANY_ROWS)
    product, bias = torch.ops.mkldnn._linear_pointwise.default, _biases(layers)
    return lambda rows: product(rows, packed, bias, "none", [], "")


def in_half(layers: Sequence[Any]) -> Product | None:
    """FBGEMM's product by a copy of 16 bits a weight; None if they would not hold the weights.

    Scaled by a power of two, which changes no digit, the weights are where float16 is dense.
    """
    dtype, there = layers[0].weight.dtype, "fbgemm" in torch.backends.quantized.supported_engines
    if not there or (dtype != torch.float32 and not is_widened(dtype)):
        return None
    tops = [float(layer.weight.detach().abs().amax()) for layer in layers]
    if not all(0 < top < math.inf for top in tops):
        return None
    _, exponent = math.frexp(LARGEST_HALF / max(tops))
    scale = 2.0 ** min(exponent - 1, MOST_SCALED)
    scaled, bias = _by_output(layers).float() * scale, _biases(layers)
    lost = (scaled.half().float() - scaled).split([outputs_of(layer) for layer in layers])
    if any(
        float(part.abs().amax()) > ROUNDING * scale * top
        for part, top in zip(lost, tops, strict=True)
    ):
        return None
    bias = None if bias is None else bias.float() * scale
    packed = torch.ops.quantized.linear_prepack_fp16(scaled, bias)
    product, back = torch.ops.quantized.linear_dynamic_fp16.default, 1 / scale
    if dtype == torch.float32:
        return lambda rows: product(rows, packed).mul_(back)
    return lambda rows: product(rows.float(), packed).mul_(back).to(dtype)


def _by_output(layers: Sequence[Any]) -> torch.Tensor:
    """(outputs, inputs)."""
    each: list[torch.Tensor] = [layer.weight.detach() for layer in layers]
    if isinstance(layers[0], Conv1D):
        each = [weight.t().contiguous() for weight in each]
    return each[0] if len(each) == 1 else torch.cat(each)


def _biases(layers: Sequence[Any]) -> torch.Tensor | None:
    """Of all outputs; None if no layer has one."""
    if all(layer.bias is None for layer in layers):
        return None
    each = [
        layer.weight.new_zeros(outputs_of(layer)) if layer.bias is None else layer.bias.detach()
        for layer in layers
    ]
    return each[0] if len(each) == 1 else torch.cat(each)
