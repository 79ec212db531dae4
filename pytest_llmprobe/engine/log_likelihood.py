"""How likely a model finds given continuations: many of one prompt cost little more than one.

A planned batch of rows with continuations is one tree of prefixes, in which each prompt is computed
once (``teacher_forcing``). Where a model
does not take trees, every row's text goes through it whole (``whitebox.log_probabilities``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from pytest_llmprobe.engine.backend import Generated
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.engine.teacher_forcing import Forced, tree_pieces
from pytest_llmprobe.errors import InvalidLogitsError, RequestError
from pytest_llmprobe.generation import GenerateConfig
from pytest_llmprobe.whitebox.log_probabilities import log_probabilities

if TYPE_CHECKING:
    from pytest_llmprobe.models.loading import LoadedModel

LONG = 256
"""Tokens of a continuation from which on it goes through the model as a text of its own: its
logits are too many to be held at once."""


@dataclass(frozen=True)
class LogLikelihood:
    """How likely a model finds a continuation.

    Args:
        value: Natural logarithm of its probability, summed over its tokens in float64.
        most_likely: Whether each of its tokens is the likeliest one there.
    """

    value: float
    most_likely: bool


def answers(loaded: LoadedModel, rows: Sequence[Row], tree: bool) -> list[Generated | RequestError]:
    """What ``Backend.generate`` gives for rows with a continuation, in their order.

    Args:
        loaded: What ``load_model`` gave.
        rows: A planned batch.
        tree: Whether the model attends to a tree of prompts as to each alone.
    """
    limit = loaded.capabilities.context_length
    short = [row for row in rows if tree and len(row.continuation) < LONG and _fits(row, limit)]
    found = dict(zip([row.index for row in short], in_one_tree(loaded.model, short), strict=True))
    for row in rows:
        if row.index not in found:
            found[row.index] = as_texts(loaded, row)
    return [_answer(loaded, row, found[row.index]) for row in rows]


def _answer(loaded: LoadedModel, row: Row, found: LogLikelihood) -> Generated | RequestError:
    if not math.isfinite(found.value):
        return InvalidLogitsError(
            "the model computed NaN or infinite scores for this text; try "
            "--llmprobe-dtype=float32, and check that the weights are whole"
        )
    text = loaded.tokenizer.decode(row.continuation)
    return Generated(
        text,
        row.continuation,
        "stop",
        log_likelihood=min(found.value, 0.0),
        most_likely=found.most_likely,
    )


@torch.inference_mode()
def in_one_tree(model: Any, rows: Sequence[Row]) -> list[LogLikelihood]:
    """Log-likelihoods of rows of one batch, whose common prefixes are computed once.

    Rows that differ in the last token of their continuation alone are one: choices of one letter
    cost no more than the prompt. Scored in float32.
    """
    alike: dict[tuple[tuple[int, ...], tuple[int, ...]], list[Row]] = {}
    for row in rows:
        alike.setdefault((row.prompt_ids, row.continuation[:-1]), []).append(row)
    if not alike:
        return []
    texts = [Forced(mine[0].prompt_ids, mine[0].continuation) for mine in alike.values()]
    batch = [
        Row(number, text.prompt, GenerateConfig(max_new_tokens=len(text.answer)))
        for number, text in enumerate(texts)
    ]
    groups, left = list(alike.values()), [len(text.answer) for text in texts]
    pieces: dict[int, list[torch.Tensor]] = {}
    found: dict[int, LogLikelihood] = {}
    for number, _, logits in tree_pieces(model, batch, texts):
        pieces.setdefault(number, []).append(logits)
        left[number] -= len(logits)
        if not left[number]:
            mine, logits = groups[number], torch.cat(pieces.pop(number))
            values = _of_continuations(logits, [row.continuation for row in mine])
            found |= dict(zip([row.index for row in mine], values, strict=True))
    return [found[row.index] for row in rows]


def _of_continuations(
    logits: torch.Tensor, continuations: Sequence[Sequence[int]]
) -> list[LogLikelihood]:
    """Of continuations (B, T) that differ in the last token alone, from logits (T, V)."""
    ids = torch.tensor(list(continuations), device=logits.device)
    # As lm-evaluation-harness. On a CPU it adds the weights one by one, which makes each token of
    # 49,152 likelier by 8e-6; long texts, in slices, have no such bias.
    scores = logits.float().log_softmax(-1)
    places = torch.arange(len(scores), device=logits.device)
    chosen = scores[places, ids]  # (B, T)
    top = scores.amax(-1)
    both = torch.stack([chosen.double().sum(-1), (chosen == top).all(-1).double()]).tolist()
    return [LogLikelihood(value, bool(greedy)) for value, greedy in zip(*both, strict=True)]


def as_texts(loaded: LoadedModel, row: Row) -> LogLikelihood:
    """The same by the model's own forward passes, of each window of a long text."""
    windows = list(rolling_windows(row, loaded.capabilities.context_length))
    texts = [(*context, *following) for context, following in windows]
    measured = log_probabilities(_with_room(loaded), texts)
    value, most_likely = 0.0, True
    for (_, following), found in zip(windows, measured, strict=True):
        value += float(found.log_probability[-len(following) :].sum())
        most_likely = most_likely and bool(found.most_likely[-len(following) :].all())
    return LogLikelihood(value, most_likely)


def _with_room(loaded: LoadedModel) -> LoadedModel:
    """The model with room for one token more: the last one of a text is not fed."""
    limit = loaded.capabilities.context_length
    if limit is None:
        return loaded
    return replace(loaded, capabilities=replace(loaded.capabilities, context_length=limit + 1))


def rolling_windows(
    row: Row, context_length: int | None
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Contexts and what follows each, so that every token of the continuation is scored once.

    The first window scores as much as the model's context holds, each later one goes on with the
    last token of the one before; the last is filled up with tokens that were scored already. As
    ``get_rolling_token_windows`` of lm-evaluation-harness with a context of one token.
    """
    prompt, following = row.prompt_ids, row.continuation
    if _fits(row, context_length):
        yield prompt, following
        return
    assert context_length is not None
    whole, first = (*prompt, *following), len(prompt)
    end = min(context_length + 1, len(whole))
    yield whole[:first], whole[first:end]
    while end < len(whole):
        start, end = end, min(end + context_length, len(whole))
        yield whole[end - context_length - 1 : start], whole[start:end]


def _fits(row: Row, context_length: int | None) -> bool:
    """Whether the model's context holds all that is fed: the last token is not."""
    fed = len(row.prompt_ids) + len(row.continuation) - 1
    return context_length is None or fed <= context_length
