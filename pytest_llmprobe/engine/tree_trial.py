"""Whether the fast path may run a model: a few passes, held against the model's own."""

from __future__ import annotations

from typing import Any

import torch

from pytest_llmprobe.engine.layer_windows import layer_windows
from pytest_llmprobe.engine.memory import Segment, TreeMemory
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.engine.prefixes import Node
from pytest_llmprobe.generation import GenerateConfig
from pytest_llmprobe.models.capabilities import close
from pytest_llmprobe.models.loading import LoadedModel
from pytest_llmprobe.whitebox.attention import BASES, attention_kind


def packs_rows(loaded: LoadedModel) -> bool:
    """As ``takes_tree``, or as an earlier start found out."""
    return loaded.kept.remembered("packed_rows", lambda: takes_tree(loaded.model))


@torch.inference_mode()
def takes_tree(model: Any) -> bool:
    """Whether a model attends to a tree of prompts as to each alone, by a few short passes.

    It does if every layer's attention goes through transformers' interface and adds nothing to the
    scores that is unknown here. What layers keep, and how long a window is, their cache tells.
    """
    if model.config.is_encoder_decoder:
        return False
    if attention_kind(model) not in BASES or layer_windows(model) is None:
        return False
    ids = [(7 * i + 5) % model.config.get_text_config().vocab_size for i in range(11)]
    config = GenerateConfig(max_new_tokens=2)
    texts = ((*ids[:4], *ids[5:8], ids[8]), (*ids[:4], ids[9], ids[10]))
    rows = [Row(number, text[:-1], config) for number, text in enumerate(texts)]
    memory = TreeMemory(model, Node(0, rows[0].prompt_ids[:4], tuple(rows), ()), rows)
    try:
        with memory.attached():
            first = torch.cat([logits for _, logits in memory.prefill([(), ()])])
            second = memory.feed(
                [Segment(n, text[-1:], len(text) - 1, 1) for n, text in enumerate(texts)]
            )
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError, KeyError):
        return False
    alone = [
        model(torch.tensor([text], device=model.device), use_cache=False).logits[0, -2:].float()
        for text in texts
    ]
    fed = [torch.stack([a, b]).float() for a, b in zip(first, second, strict=True)]
    return all(close(mine, its, model.dtype) for mine, its in zip(fed, alone, strict=True))
