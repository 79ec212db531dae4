"""How much a batch may hold: found for the machine and the model."""

from __future__ import annotations

from typing import Any

import psutil
import torch

from pytest_llmprobe.engine.planning import PACKED_ROWS, TOKEN_BUDGET, Room
from pytest_llmprobe.models.loading import LoadedModel

CPU_SHARE, DEVICE_SHARE = 0.25, 0.6
"""Of the free memory, for keys and values: other workers, activations and logits need some too."""

DEVICE_ROWS = 512
"""Rows of a step from which on an accelerator is no faster."""


def found_room(loaded: LoadedModel) -> Room:
    """As much as keeps the cores busy, or as fits on an accelerator."""
    device, size = loaded.model.device, cache_bytes(loaded.model)
    if device.type == "cpu":
        cores = torch.get_num_threads()
        room = Room(cores * TOKEN_BUDGET, cores * PACKED_ROWS)
        free = CPU_SHARE * psutil.virtual_memory().available
    elif device.type == "cuda":
        room = Room(2**20, DEVICE_ROWS)
        free = DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
    else:
        return Room()
    return room if not size else Room(max(1, min(room.tokens, int(free / size))), room.rows)


@torch.inference_mode()
def cache_bytes(model: Any) -> int:
    """Bytes of the keys and values of a token; 0 if the model keeps none that grow."""
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    decoder = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    cache = model(ids, use_cache=True, **decoder).get("past_key_values")
    layers = getattr(getattr(cache, "self_attention_cache", cache), "layers", ())
    states = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
    return sum(state.nbytes for state in states if isinstance(state, torch.Tensor)) // 2
