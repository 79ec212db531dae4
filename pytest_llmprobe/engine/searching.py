"""Answers that are searched for: beams by plain ``generate``, contrastive search in a loop of ours.

The reference path alone: each row by itself, so that an answer depends on no other row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.engine.sampling import penalties
from pytest_llmprobe.errors import InvalidLogitsError, UnsupportedError

if TYPE_CHECKING:
    from pytest_llmprobe.models.loading import LoadedModel

BROKEN = (
    "the model computed NaN or infinite scores for this prompt; try --llmprobe-dtype=float32, "
    "and check that the weights are whole"
)


def searched_tokens(loaded: LoadedModel, row: Row) -> list[int]:
    """The tokens of a row's answer, up to the end-of-sequence token if there is one.

    A stop string does not end the search: it cuts the answer that was found.

    Raises:
        InvalidLogitsError: The model computed no numbers.
        UnsupportedError: Contrast is asked of a steered row or of a model with an encoder.
    """
    if row.config.num_beams > 1:
        return _beams(loaded, row)
    if row.steering is not None:
        raise UnsupportedError("contrastive search is not steered: use num_beams, or neither")
    if loaded.capabilities.encoder:
        raise UnsupportedError(
            "contrastive search compares the hidden states of prompt and answer, and this model "
            "keeps them in an encoder and a decoder: use num_beams"
        )
    return _contrast(loaded, row)


class _Finite(LogitsProcessor):
    """Notes whether a score was no number."""

    broken = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.broken = self.broken or bool(scores.amax(dim=-1).isnan().any())
        return scores


@torch.inference_mode()
def _beams(loaded: LoadedModel, row: Row) -> list[int]:
    """Beam search as transformers does it, with every field that matters set."""
    config, finite = row.config, _Finite()
    ids = torch.tensor([row.prompt_ids], device=loaded.model.device)
    found = loaded.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        generation_config=GenerationConfig(
            max_new_tokens=row.room,
            do_sample=False,
            num_beams=config.num_beams,
            length_penalty=config.length_penalty,
            early_stopping=config.early_stopping,
            repetition_penalty=float(config.repetition_penalty),
            encoder_repetition_penalty=float(config.encoder_repetition_penalty),
            no_repeat_ngram_size=config.no_repeat_ngram_size,
            eos_token_id=list(loaded.end_ids) or None,
            pad_token_id=loaded.pad_id,
        ),
        logits_processor=LogitsProcessorList([finite]),
    )
    if finite.broken:
        raise InvalidLogitsError(BROKEN)
    said: list[int] = found[0, 1 if loaded.capabilities.encoder else ids.shape[1] :].tolist()
    return said


@torch.inference_mode()
def _contrast(loaded: LoadedModel, row: Row) -> list[int]:
    """Contrastive search (Su et al. 2022, arXiv 2202.06417, equation 5).

    Of the k likeliest tokens the one with the largest (1 - a) p(v | before) - a max cos(h_v, h_j),
    where h are the last layer's hidden states, of the token v in its place and of all before. The
    penalties come before the probability, as in ``generate``.
    """
    model, config = loaded.model, row.config
    k = min(config.top_k, model.get_output_embeddings().weight.shape[0])
    prompt = torch.tensor([row.prompt_ids], device=model.device)
    processors = penalties(config, row.prompt_ids, prompt.device)
    said: list[int] = []
    out = model(input_ids=prompt, output_hidden_states=True, use_cache=True)
    cache, hidden = _cache_of(out), out.hidden_states[-1][0]
    logits = out.logits[:, -1]
    while len(said) < row.room:
        ids: Any = torch.cat([prompt, prompt.new_tensor([said])], dim=1) if said else prompt
        scores: torch.Tensor = processors(ids, logits.float())
        if not bool(scores.amax(-1).isfinite().all()):
            raise InvalidLogitsError(BROKEN)
        likely, tokens = scores.softmax(-1).topk(k, dim=-1)
        states, heads, cache = _candidates(model, ids, tokens[0], cache)
        alike = functional.normalize(states, dim=-1) @ functional.normalize(hidden, dim=-1).T
        value = (1 - config.penalty_alpha) * likely[0] - config.penalty_alpha * alike.amax(-1)
        best = int(value.argmax())
        said.append(int(tokens[0, best]))
        if said[-1] in loaded.end_ids:
            break
        hidden = torch.cat([hidden, states[best : best + 1]])
        logits = heads[best : best + 1]
        if cache is not None:
            cache.batch_select_indices(torch.tensor([best], device=model.device))
    return said


def _cache_of(out: Any) -> Any:
    """A cache whose rows can be repeated and chosen; None for others, and for states."""
    cache = getattr(out, "past_key_values", None)
    rows = ("batch_repeat_interleave", "batch_select_indices")
    return cache if all(hasattr(cache, name) for name in rows) else None


def _candidates(
    model: Any, before: torch.Tensor, tokens: torch.Tensor, cache: Any
) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Hidden states (k, D) and next logits (k, V) of each candidate (k,) after the tokens (1, T).

    With a cache of the tokens before, which then holds a row for each candidate; else all is
    computed anew.
    """
    k, length = len(tokens), before.shape[1]
    if cache is None:
        ids = torch.cat([before.expand(k, -1), tokens[:, None]], dim=1)
        out = model(input_ids=ids, output_hidden_states=True, use_cache=False)
        return out.hidden_states[-1][:, -1], out.logits[:, -1], None
    cache.batch_repeat_interleave(k)
    out = model(
        input_ids=tokens[:, None],
        attention_mask=before.new_ones(k, length + 1),
        past_key_values=cache,
        output_hidden_states=True,
        use_cache=True,
    )
    return out.hidden_states[-1][:, -1], out.logits[:, -1], out.past_key_values
