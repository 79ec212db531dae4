"""Log-probabilities of the tokens of given texts, without ever holding all logits at once.

The logits of 1,024 tokens over 50,000 words take 205 MB in float32, more than many a model's
activations: so a long text goes through the model in chunks, on its own cache.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pytest_llmprobe.errors import (
    CasesError,
    InvalidLogitsError,
    PromptTooLongError,
    SettingsError,
)
from pytest_llmprobe.models.context_length import forget_longest, is_turned
from pytest_llmprobe.models.loading import LoadedModel
from pytest_llmprobe.whitebox.attention import is_tapped

TOKEN_BUDGET = 4096
"""Most tokens of one forward pass."""

CPU_LOGITS, DEVICE_LOGITS = 2**23, 2**26
"""Most logits that a forward pass may return: 34 and 268 MB in float32."""

SHARED = 8
"""Tokens that texts must begin with alike for them to be read once."""

USUAL_CACHE = "past_key_values"
"""What most architectures call their cache."""

SLICE = 2**19
"""Logits that are normalised together; several arrays of this size exist at a time."""


@dataclass(frozen=True, eq=False)
class TokenLogProbabilities:
    """How likely a model found each token of a text of T tokens, but for the first.

    Args:
        log_probability: Natural logarithm of the probability of each token, given those before
            it [T - 1].
        mean: Mean of the log-probability under the model's own distribution of the next token,
            the negative entropy, at the same places [T - 1].
        variance: Its variance, likewise [T - 1].
        most_likely: 1 where no token was found likelier, else 0 [T - 1].
    """

    log_probability: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]
    most_likely: npt.NDArray[np.float64]


@torch.inference_mode()
def log_probabilities(
    loaded: LoadedModel, texts: Sequence[Sequence[int]], *, token_budget: int = TOKEN_BUDGET
) -> list[TokenLogProbabilities]:
    """The log-probability of every token of each text, in order, by the model's forward passes.

    Short texts share a pass; a long one has several, on a filled cache if the model can go on with
    one (``capabilities.cached_continuation``), else each from the text's beginning. With such a
    cache, what the texts of a pass begin with alike is read once, too, unless the model is steered.
    A text that is rotated by its length (``even_to``) has all its passes for itself. Computed in
    float32 from logits in the model's dtype: in float32 a text gets what it would get alone, to
    about 1e-6; in bfloat16 the logits themselves depend on the batch.

    An encoder and decoder (T5) is given an empty text to read, and says the texts.

    Args:
        loaded: What ``load_model`` gave.
        texts: Token ids of each text, with the BOS token if it is to be there: the first token
            has no log-probability, and a text of one token gives empty arrays.
        token_budget: Most tokens of one forward pass; fewer where the vocabulary is large, more
            where a long text cannot go on from a cache.

    Raises:
        CasesError: A text has no tokens, or a token that the model does not know.
        SettingsError: The token budget is not positive.
        PromptTooLongError: A text is longer than the model's context.
        InvalidLogitsError: The model computed NaN or infinite scores for a text.
    """
    if token_budget < 1:
        raise SettingsError(f"token_budget {token_budget} is too small: give at least 1")
    for number, text in enumerate(texts):
        _check(loaded, number, text)
    measured: dict[int, TokenLogProbabilities] = {}
    for batch in text_batches(loaded, [len(text) for text in texts], token_budget):
        moments = _measure(loaded, [texts[number] for number in batch], token_budget)
        for number, found in zip(batch, moments, strict=True):
            if not np.isfinite(found).all():
                raise InvalidLogitsError(
                    f"texts[{number}]: the model computed NaN or infinite scores; load it in "
                    "float32, and check that the weights are whole"
                )
            measured[number] = TokenLogProbabilities(*found)
    return [measured[number] for number in range(len(texts))]


def _check(loaded: LoadedModel, number: int, text: Sequence[int]) -> None:
    if not text:
        raise CasesError(f"texts[{number}] has no tokens: leave it out")
    context = loaded.capabilities.context_length
    if context is not None and len(text) > context:
        raise PromptTooLongError(
            f"texts[{number}] has {len(text)} tokens, and the model's context holds {context}: "
            "cut the text"
        )
    # An id beyond the embeddings would stop a GPU's process for good.
    words = _vocabulary(loaded.model)
    if min(text) < 0 or max(text) >= words:
        raise CasesError(
            f"texts[{number}] holds token ids from {min(text)} to {max(text)}, and the model knows "
            f"0 to {words - 1}: use its own tokenizer"
        )


def _vocabulary(model: Any) -> int:
    return int(model.config.get_text_config(decoder=True).vocab_size)


def _pass_tokens(model: Any) -> int:
    """Tokens whose logits may exist together."""
    logits = CPU_LOGITS if model.device.type == "cpu" else DEVICE_LOGITS
    return max(1, logits // _vocabulary(model))


def text_batches(
    loaded: LoadedModel, lengths: Sequence[int], token_budget: int
) -> Iterator[list[int]]:
    """Numbers of texts that share a pass, the longest first, so that memory fails early if at all.

    Together they fit into one pass; where pads were found to matter, every text is alone, and so is
    one that would turn the others.
    """
    room = min(token_budget, _pass_tokens(loaded.model)) if loaded.capabilities.left_padding else 0
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        longest = lengths[batch[0]] if batch else 0
        if batch and (is_turned(loaded.model, longest - 1) or (len(batch) + 1) * longest > room):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _measure(
    loaded: LoadedModel, texts: Sequence[Sequence[int]], token_budget: int
) -> list[npt.NDArray[np.float64]]:
    """What is measured [4, T - 1] of each text, the longest of which comes first."""
    # Whatever follows a text is not seen by its tokens: any token fills the row.
    ids = torch.tensor(list(texts[0])).repeat(len(texts), 1)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = torch.tensor(list(text))
    lengths = torch.tensor([len(text) for text in texts])
    wanted = torch.arange(1, ids.shape[1]) < lengths[:, None]
    width = ids.shape[1] - 1
    moments = np.zeros((4, len(texts), width))

    def note(start: int, end: int, logits: torch.Tensor) -> None:
        here = wanted[:, start:end]
        found = _moments(logits, ids[:, start + 1 : end + 1], here)
        moments[:, :, start:end][:, here.numpy()] = found.cpu().numpy()

    given, cache = ids[:, :-1].to(loaded.model.device), None
    shared = _shared(loaded, ids)
    if shared:
        begun = loaded.model(given[:1, :shared], use_cache=True)
        cache = begun.past_key_values
        cache.reorder_cache(torch.zeros(len(texts), dtype=torch.long, device=given.device))
        note(0, shared, begun.logits.expand(len(texts), -1, -1))
    step, logits = passes(loaded, given[:, shared:], token_budget, cache)
    for start in range(shared, width, step or 1):
        end = min(start + step, width)
        note(start, end, logits(start - shared, end - shared))
    return [moments[:, row, : len(text) - 1].copy() for row, text in enumerate(texts)]


def _shared(loaded: LoadedModel, ids: torch.Tensor) -> int:
    """How many tokens of each of the texts [B, T] are read once for all: not the last that counts.

    They fit into one pass, which is what the texts of a batch do together.
    """
    model = loaded.model
    able = loaded.capabilities.cached_continuation and _cache_name(model) == USUAL_CACHE
    if len(ids) == 1 or not able:  # a cache of another kind has rows that we cannot copy
        return 0
    if is_tapped(model) or is_turned(model, ids.shape[1] - 1):
        return 0
    alike = (ids[:, :-2] == ids[:1, :-2]).all(0).long().cumprod(0).sum().item()
    return int(alike) if alike >= SHARED else 0


def _cache_name(model: Any) -> str:
    usual = USUAL_CACHE in inspect.signature(model.forward).parameters
    return USUAL_CACHE if usual else "cache_params"


def passes(
    loaded: LoadedModel, ids: torch.Tensor, token_budget: int, begun: Any = None
) -> tuple[int, Callable[[int, int], Any]]:
    """Width of a chunk of ids [B, T], and what computes the logits of each [B, t, V], in order.

    ``begun`` is the cache of what stands before the ids.
    """
    model = loaded.model
    if loaded.capabilities.encoder:
        return _said(loaded, ids)
    parameters = inspect.signature(model.forward).parameters
    rows, width = ids.shape
    most = max(1, _pass_tokens(model) // rows)
    forget_longest(model)
    turned = is_turned(model, width)
    if loaded.capabilities.cached_continuation and not turned:
        most = max(1, min(most, token_budget // rows))
    elif "logits_to_keep" not in parameters:
        most = width  # nothing helps: all logits at once
    step = ceil(width / ceil(width / most)) if width > most else width
    name = _cache_name(model)
    cache: dict[str, Any] = {} if begun is None else {name: begun}

    def logits(start: int, end: int) -> Any:
        if step == width and not cache:
            return model(ids, use_cache=False).logits
        if turned:
            wanted = torch.arange(start, end, device=ids.device)
            return model(ids, use_cache=False, logits_to_keep=wanted).logits
        if not loaded.capabilities.cached_continuation:
            return model(ids[:, :end], use_cache=False, logits_to_keep=end - start).logits
        output = model(ids[:, start:end], use_cache=True, **cache)
        cache[name] = output[name]
        return output.logits

    return step, logits


def _said(loaded: LoadedModel, ids: torch.Tensor) -> tuple[int, Callable[[int, int], Any]]:
    """As ``passes``, of a decoder whose encoder reads nothing."""
    rows, width = ids.shape
    empty = ids.new_tensor([loaded.tokenizer("")["input_ids"] or [loaded.pad_id]])
    start = loaded.model.generation_config.decoder_start_token_id
    begun = torch.cat([ids.new_full((rows, 1), start), ids], dim=1)

    def logits(first: int, last: int) -> Any:
        read = {"input_ids": empty.expand(rows, -1), "attention_mask": torch.ones_like(empty)}
        read["attention_mask"] = read["attention_mask"].expand(rows, -1)
        said = loaded.model(**read, decoder_input_ids=begun, use_cache=False).logits
        return said[:, 1 + first : 1 + last]

    return width, logits


def _moments(logits: torch.Tensor, targets: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The fields of ``TokenLogProbabilities`` [4, N] at the N wanted places.

    Of each place come the logits [B, t, V], the token that follows [B, t], and if it counts [B, t].
    """
    flat = logits.flatten(0, 1)
    places = wanted.flatten().nonzero().squeeze(-1).to(flat.device)
    following = targets.flatten().to(flat.device)
    moments = torch.empty(4, len(places), device=flat.device)
    rows = max(1, SLICE // flat.shape[1])
    for first in range(0, len(places), rows):
        here = slice(first, first + rows)
        score = flat[places[here]].float()
        score -= score.amax(-1, keepdim=True)
        weight = score.exp()
        total = weight.sum(-1)
        mean = (weight * score).sum(-1) / total
        moments[0, here] = score.gather(-1, following[places[here], None]).squeeze(-1)
        moments[1, here] = mean
        moments[3, here] = (moments[0, here] == 0).float()  # the highest score is 0
        moments[:2, here] -= total.log()
        score -= mean[:, None]
        moments[2, here] = (weight * score.square_()).sum(-1) / total
    return moments
