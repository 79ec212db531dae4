"""A shared prefix computed once, its cache copied to each row: for layers that keep a state.

A recurrent state cannot be read by many rows at once as keys can, and pads in its middle would
change it: rows whose own ends are equally long go through ``generate`` together, without pads.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor

from pytest_llmprobe.engine.planning import TOKEN_BUDGET, UNEVEN, Row
from pytest_llmprobe.engine.prefixes import Node
from pytest_llmprobe.engine.sampling import has_penalties
from pytest_llmprobe.generation import GenerateConfig
from pytest_llmprobe.models.capabilities import close
from pytest_llmprobe.models.loading import LoadedModel

CACHES = ("past_key_values", "cache_params")
"""What architectures call their cache, in their outputs and arguments."""


WAYS = ("generate", "at once", "one by one")
"""How rows go on from copies: ``generate`` cuts off what is cached, or it is given the last token
alone, after the tokens before it have been fed in one pass or in a pass each."""


@dataclass(frozen=True)
class Prefix:
    """Tokens that rows share, and what the model keeps of them.

    Args:
        model: The transformers model.
        way: One of ``WAYS``.
        length: Tokens.
        name: What it calls its cache.
        cache: Of one row; never handed out, since a model writes into it.
    """

    model: Any
    way: str = WAYS[0]
    length: int = 0
    name: str = CACHES[0]
    cache: Any = None

    def longer(self, tokens: Sequence[int]) -> Prefix:
        """With more tokens, which it reads; raises ValueError if the model gives no cache."""
        ids = torch.tensor([tokens], device=self.model.device)
        if self.cache is None:
            output = self.model(ids, use_cache=True, logits_to_keep=1)
            name = next((n for n in CACHES if getattr(output, n, None) is not None), None)
            if name is None:
                raise ValueError("this model gives no cache")
            return replace(self, length=len(tokens), name=name, cache=getattr(output, name))
        copied = self._copied(1)
        self._feed(ids, copied)
        return replace(self, length=self.length + len(tokens), cache=copied)

    def asked(self, prompts: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        """What ``generate`` is to be given for whole prompts (B, T): ids, and the cache by name."""
        if self.cache is None:
            return prompts, {}
        copied = self._copied(len(prompts))
        if self.way == WAYS[0]:
            return prompts, {self.name: copied}
        if prompts.shape[1] - 1 > self.length:
            self._feed(prompts[:, self.length : -1], copied)
        return prompts[:, -1:], {self.name: copied}

    def _copied(self, rows: int) -> Any:
        copied = copy.deepcopy(self.cache)
        if rows > 1:
            copied.reorder_cache(torch.zeros(rows, dtype=torch.long, device=self.model.device))
        return copied

    def _feed(self, ids: torch.Tensor, cache: Any) -> None:
        for part in ids.split(1 if self.way == WAYS[2] else ids.shape[1], dim=1):
            self.model(part, use_cache=True, logits_to_keep=1, **{self.name: cache})


@torch.inference_mode()
def batches(model: Any, node: Node, above: Prefix) -> Iterator[tuple[Prefix, list[Row]]]:
    """Rows of a tree that may go through ``generate`` together, and the prefix that they share.

    They have one config and equally long prompts; of those that share nothing the lengths may
    differ. What is held at a time is a cache of one row for each node above, and a batch's.
    """
    here = above.longer(node.tokens) if node.tokens else above
    alike: dict[tuple[GenerateConfig, int], list[Row]] = {}
    for row in node.leaves:
        # A penalty looks at the whole prompt, of which such a way shows generate the last token.
        shares = here.length and not (here.way != WAYS[0] and has_penalties(row.config))
        alike.setdefault((row.config, len(row.prompt_ids) if shares else 0), []).append(row)
    for (_, length), rows in alike.items():
        prefix = here if length else Prefix(model)
        # The planner has not counted the copies.
        most = UNEVEN * TOKEN_BUDGET // max(row.length for row in rows) if length else len(rows)
        for first in range(0, len(rows), max(1, most)):
            yield prefix, rows[first : first + max(1, most)]
    for child in node.children:
        yield from batches(model, child, here)


class Leads(LogitsProcessor):
    """Notes by how much each row's best score leads (B,), step after step."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores (B, V) as they are."""
        best = scores.topk(2, dim=-1).values
        self.steps.append((best[:, 0] - best[:, 1]).cpu())
        return scores

    def least(self, place: int, tokens: int) -> float:
        """The least lead over a row's first tokens."""
        return min((float(step[place]) for step in self.steps[:tokens]), default=float("inf"))


def way_of(loaded: LoadedModel) -> str:
    """As ``trial``, or as an earlier start found out; empty if copies are none of its ways."""
    return loaded.kept.remembered("copied_prefixes", lambda: trial(loaded.model))


@torch.inference_mode()
def trial(model: Any) -> str:
    """In which of the ways two rows go on from copies as a whole prompt does, by short passes."""
    if model.config.is_encoder_decoder:
        return ""
    tokens = [(7 * i + 5) % model.config.get_text_config().vocab_size for i in range(12)]
    ids = torch.tensor([tokens], device=model.device)
    whole = _logits(model, ids, {})
    return next((way for way in WAYS if _goes(model, way, ids, whole)), "")


def _goes(model: Any, way: str, ids: torch.Tensor, whole: torch.Tensor) -> bool:
    tokens, fed = ids[0].tolist(), list[int]()
    hook = model.get_input_embeddings().register_forward_pre_hook(
        lambda module, given: fed.append(given[0].shape[-1])
    )
    try:
        prefix = Prefix(model, way).longer(tokens[:4]).longer(tokens[4:7])
        fed.clear()
        # Twice: nothing may have been written into the original.
        found = [_logits(model, *prefix.asked(ids.expand(2, -1))) for _ in range(2)]
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError, KeyError):
        return False
    finally:
        hook.remove()
    once = sum(fed) == 2 * (len(tokens) - prefix.length + 1)
    return once and all(close(both, whole.expand_as(both), model.dtype) for both in found)


def _logits(model: Any, ids: torch.Tensor, cached: dict[str, Any]) -> torch.Tensor:
    """Of the next two tokens (2, B, V)."""
    config = GenerationConfig(
        max_new_tokens=2,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    found = model.generate(
        ids, attention_mask=torch.ones_like(ids), generation_config=config, **cached
    )
    return torch.stack(found.logits).float()
