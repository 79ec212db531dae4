"""A model's norms and rotations of positions in fewer operations, the same but for rounding.

Beside its products a step of decoding is more than a thousand small operations. What may be written
shorter is told by its code: the same instructions as in the family that most others were made from.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from types import FunctionType, SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama import modeling_llama as llama

from pytest_llmprobe.engine.attention_forms import Forward, attention_form
from pytest_llmprobe.engine.same_code import is_plain, same_code

ROTATION = "apply_rotary_pos_emb"
"""Name under which transformers' attention layers call what rotates queries and keys."""


@dataclass
class ShortForms:
    """Modules of one model with what may stand for their ``forward``, while ``active``."""

    forwards: list[tuple[Any, Forward]]
    _users: int = 0
    _changed: list[Any] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def active(self) -> Iterator[None]:
        """A block in which the modules compute so in inference mode, in float32."""
        with self._lock:
            if not self._users:
                # A forward that somebody has put there since stays.
                free = [each for each in self.forwards if "forward" not in vars(each[0])]
                for module, forward in free:
                    module.forward = forward
                self._changed = [module for module, _ in free]
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    for module in self._changed:
                        del module.forward


_KNOWN: WeakKeyDictionary[Any, ShortForms] = WeakKeyDictionary()


def short_forms(model: Any) -> ShortForms:
    """Those of a transformers model; modules whose ``forward`` was exchanged have none."""
    if model not in _KNOWN:
        found = ((m, _short(m)) for m in model.modules() if "forward" not in vars(m))
        _KNOWN[model] = ShortForms([(m, short) for m, short in found if short is not None])
    return _KNOWN[model]


def _short(module: Any) -> Forward | None:
    kind = type(module)
    if same_code(kind, llama.LlamaRMSNorm, "forward"):
        return _norm(module, module.variance_epsilon, around_one=False)
    if same_code(kind, GemmaRMSNorm, "forward") and same_code(kind, GemmaRMSNorm, "_norm"):
        return _norm(module, module.eps, around_one=True)
    return _rotating(module)


def _norm(module: Any, epsilon: float, around_one: bool) -> Forward:
    """X / sqrt(mean of x^2 + epsilon), times the weight or the weight and 1."""
    own = partial(type(module).forward, module)
    least = torch.tensor(epsilon, device=module.weight.device)

    def forward(hidden_states: torch.Tensor) -> torch.Tensor:
        x, weight = hidden_states, module.weight
        if not _is_ours(x, weight) or x.device != least.device:
            return own(x)  # type: ignore[no-any-return]
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        factor = torch.addcmul(least, length, length, value=1 / x.shape[-1]).rsqrt_()
        normed = x * factor
        return normed.addcmul_(normed, weight) if around_one else normed.mul_(weight)

    return forward


def _rotating(module: Any) -> Forward | None:
    """The module's own ``forward``, in which another function rotates, or one with fewer calls."""
    own = type(module).forward
    if not is_plain(own):
        return None
    names = own.__globals__
    rotation = names.get(ROTATION)
    if ROTATION not in own.__code__.co_names or not isinstance(rotation, FunctionType):
        return None
    its = SimpleNamespace(**rotation.__globals__)
    if not (same_code(its, llama, ROTATION) and same_code(its, llama, "rotate_half")):
        return None
    shorter = _rotation(rotation)
    if (written_out := attention_form(module, shorter)) is not None:
        return written_out
    changed = names | {ROTATION: shorter}
    forward = FunctionType(own.__code__, changed, own.__name__, own.__defaults__)
    forward.__kwdefaults__ = own.__kwdefaults__
    return partial(forward, module)


@cache
def _rotation(own: Forward) -> Forward:
    """Both halves of a head by turns: the one is added to the other with a sign, not negated."""
    last: tuple[Any, Any] = (None, None)  # the sines of all layers, so one function serves them all

    def rotate(
        q: torch.Tensor,
        k: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        unsqueeze_dim: int = 1,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal last
        half, odd = divmod(sin.shape[-1], 2)
        if odd or not (_is_ours(q, k) and _is_ours(cos, sin)):
            return own(q, k, cos, sin, unsqueeze_dim)  # type: ignore[no-any-return]
        of, signed = last
        if of is not sin:
            signed = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
            last = (sin, signed)
        cos, signed = cos.unsqueeze(unsqueeze_dim), signed.unsqueeze(unsqueeze_dim)
        query, key = ((x * cos).addcmul_(x.roll(half, -1), signed) for x in (q, k))
        return query, key

    return rotate


def _is_ours(*tensors: torch.Tensor) -> bool:
    """In fewer bits the order of operations would round otherwise; gradients are the module's."""
    if not torch.is_inference_mode_enabled():
        return False
    return all(tensor.dtype == torch.float32 for tensor in tensors)
