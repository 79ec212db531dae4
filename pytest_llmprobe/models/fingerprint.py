"""Weights by 16 hex digits: all values count, and so does the place where each of them is.

The bytes are read as whole numbers of 32 bits. Each is multiplied by a weight of its place, modulo
2^32, and the sums of blocks are hashed in order. The weights are odd, so one changed value always
changes its sum. What differs in its high bits alone (a sign, a power of two, a value of 16 bits
widened to 32) would hardly feel another weight; so the bytes are summed in reverse, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

BLOCK = 1 << 15
"""Numbers that are summed together, little enough for a processor's cache."""

TOGETHER = 512
"""Blocks in one call on an accelerator."""

WEIGHTS = 1 | np.frombuffer(
    hashlib.shake_256(b"weights of places").digest(2 * BLOCK * 4), dtype="<u4"
).reshape(2, BLOCK)
"""Of a number and of its reversed bytes, by place in the block."""


def fingerprint(model: Any) -> str:
    """16 hex digits that change with the weights: names, shapes, dtypes, every value and its place.

    The same wherever the weights are and from however many files they came.
    """
    digest = hashlib.sha256()
    known: dict[tuple[Any, ...], bytes] = {}  # tied weights have several names
    parts = [part for name, tensor in model.state_dict().items() for part in _parts(name, tensor)]
    for name, tensor in sorted(parts, key=itemgetter(0)):
        what = f"{tuple(tensor.shape)} {tensor.dtype}"
        digest.update(f"{name} {what}".encode())
        where = (tensor.device, tensor.data_ptr(), tensor.stride(), what)
        if where not in known:
            known[where] = _summed(tensor)
        digest.update(known[where])
    return digest.hexdigest()[:16]


def _parts(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """A tensor, or those that a quantised one of torchao is made of."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield name, tensor
        return
    inner, _ = tensor.__tensor_flatten__()
    for part in inner:
        yield from _parts(f"{name}.{part}", getattr(tensor, part))


def _summed(tensor: torch.Tensor) -> bytes:
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if data.numel() % 4 or data.storage_offset() % 4:
        data = pad(data, (0, -data.numel() % 4)).clone()
    words = data.view(torch.int32)
    sums = block_sums(words.numpy()) if words.is_cpu else block_sums_on_device(words)
    return sums.tobytes()


def block_sums(words: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Both sums of each block of 32-bit numbers, (2, blocks); numpy is faster here than torch."""
    words, size = words.view(np.uint32), len(words)
    sums = np.empty((2, -(-size // BLOCK)), np.uint32)
    backwards, product = np.empty((2, BLOCK), np.uint32)
    for block in range(sums.shape[1]):
        part = words[block * BLOCK : (block + 1) * BLOCK]
        size = len(part)
        np.copyto(backwards[:size], part.view(part.dtype.newbyteorder()))
        for row, numbers in enumerate((part, backwards[:size])):
            np.multiply(numbers, WEIGHTS[row, :size], out=product[:size])
            sums[row, block] = product[:size].sum(dtype=np.uint32)
    return sums


def block_sums_on_device(words: torch.Tensor) -> np.ndarray[Any, Any]:
    """As ``block_sums``, where the numbers are."""
    weights = torch.from_numpy(WEIGHTS.view(np.int32).copy()).to(words.device)
    blocks = pad(words, (0, -words.numel() % BLOCK)).view(-1, BLOCK)
    sums = []
    for part in blocks.split(TOGETHER):
        reversed_bytes = part.view(torch.uint8).view(*part.shape, 4).flip(-1).view(torch.int32)
        sums += [
            torch.stack(
                [
                    (numbers * weight).sum(1, dtype=torch.int32)
                    for numbers, weight in zip((part, reversed_bytes[..., 0]), weights, strict=True)
                ]
            )
        ]
    found = torch.cat(sums, dim=1) if sums else words.new_empty((2, 0))
    array: np.ndarray[Any, Any] = found.cpu().numpy().view(np.uint32)
    return array
