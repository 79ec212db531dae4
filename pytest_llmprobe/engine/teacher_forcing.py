"""Teacher forcing: a model's logits at every token of answers that are given, without decoding.

One forward pass over prompts and answers, with the beginnings that prompts share computed once
where the model allows it; for every other architecture padded batches, as of `log_probabilities`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from pytest_llmprobe.engine.memory import Segment, TreeMemory
from pytest_llmprobe.engine.planning import Row, plan
from pytest_llmprobe.engine.prefixes import depth_first, prefix_tree
from pytest_llmprobe.engine.room import found_room
from pytest_llmprobe.engine.tree_trial import packs_rows
from pytest_llmprobe.errors import (
    CasesError,
    InvalidLogitsError,
    PromptTooLongError,
    RequestError,
)
from pytest_llmprobe.generation import GenerateConfig
from pytest_llmprobe.models.context_length import even_to
from pytest_llmprobe.models.loading import LoadedModel
from pytest_llmprobe.statistics.divergence import TOP, Distributions, Seen, coded
from pytest_llmprobe.whitebox.log_probabilities import SLICE, TOKEN_BUDGET, passes, text_batches


@dataclass(frozen=True)
class Forced:
    """A text whose end is looked at.

    Args:
        prompt: Token ids before the answer, at least one.
        answer: Token ids of the answer, at least one.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """All of them."""
        return self.prompt + self.answer


class Piece(NamedTuple):
    """Logits (t, V) that the answer's tokens from ``start`` on come from, of text ``number``."""

    number: int
    start: int
    logits: torch.Tensor


class TeacherForcing:
    """Runs a loaded model over given answers.

    Args:
        loaded: What ``load_model`` gave.
        shares_prefixes: Whether common beginnings of prompts are computed once; None: if the model
            allows it, which a few short passes tell.
    """

    def __init__(self, loaded: LoadedModel, shares_prefixes: bool | None = None) -> None:
        self.loaded, self.model = loaded, loaded.model
        config = self.model.config.get_text_config()
        self.vocabulary = int(config.vocab_size)
        if shares_prefixes is None:
            shares_prefixes = packs_rows(loaded)
        # Where a long row turns the others of its batch, batches are those of texts.
        self.shares_prefixes = shares_prefixes and even_to(config) is None

    def check(self, text: Forced) -> None:
        """Make sure that the model can be run over a text.

        Raises:
            CasesError: It lacks a prompt or an answer.
            RequestError: It has tokens that the model does not know.
            PromptTooLongError: It is longer than the model's context.
        """
        if not text.prompt or not text.answer:
            raise CasesError("a text that is looked at has at least a token before and one after")
        context = self.loaded.capabilities.context_length
        if context is not None and len(text.ids) - 1 > context:  # the last token is not fed
            raise PromptTooLongError(
                f"prompt and answer have {len(text.prompt)} and {len(text.answer)} tokens, and the "
                f"model's context holds {context}"
            )
        if min(text.ids) < 0 or max(text.ids) >= self.vocabulary:
            raise RequestError(
                f"token ids from {min(text.ids)} to {max(text.ids)}, and the model knows 0 to "
                f"{self.vocabulary - 1}"
            )

    @torch.inference_mode()
    def logits(self, texts: Sequence[Forced]) -> Iterator[Piece]:
        """The logits of all answers, piece by piece, in whatever order suits the model.

        Raises:
            CasesError, RequestError, PromptTooLongError: As ``check``.
        """
        for text in texts:
            self.check(text)
        if not self.shares_prefixes:
            yield from self._padded(texts)
            return
        rows = [
            Row(number, text.prompt, GenerateConfig(max_new_tokens=len(text.answer)))
            for number, text in enumerate(texts)
        ]
        room = found_room(self.loaded)
        for batch in plan(rows, None, room.tokens, True, packed_rows=room.rows):
            yield from tree_pieces(self.model, batch, texts)

    def _padded(self, texts: Sequence[Forced]) -> Iterator[Piece]:
        """Batches with pads behind the texts, which no token of a text sees."""
        lengths = [len(text.ids) for text in texts]
        for batch in text_batches(self.loaded, lengths, TOKEN_BUDGET):
            width = lengths[batch[0]] - 1
            ids = torch.tensor(
                [[*texts[n].ids[:-1]] + [0] * (width + 1 - lengths[n]) for n in batch]
            )
            step, logits = passes(self.loaded, ids.to(self.model.device), TOKEN_BUDGET)
            for start in range(0, width, step):
                end = min(start + step, width)
                found = logits(start, end)
                for row, number in enumerate(batch):
                    first = len(texts[number].prompt) - 1
                    here = slice(max(first, start), min(lengths[number] - 1, end))
                    if here.start < here.stop:
                        part = found[row, here.start - start : here.stop - start]
                        yield Piece(number, here.start - first, part)

    def distributions(
        self, texts: Sequence[Forced], k: int = TOP
    ) -> list[Distributions | InvalidLogitsError]:
        """The k likeliest tokens at each token of each answer; the error of a text with NaN.

        Raises:
            CasesError, RequestError, PromptTooLongError: As ``check``.
        """
        k = min(k, self.vocabulary)
        kind = np.uint16 if self.vocabulary <= 2**16 else np.uint32
        found = [
            Distributions(
                np.zeros((len(text.answer), k), kind),
                np.zeros((len(text.answer), k), np.uint16),
                np.full(len(text.answer), np.nan, np.float32),
                np.full(len(text.answer), np.nan, np.float32),
            )
            for text in texts
        ]
        for number, here, scores, following in self._slices(texts):
            values, ids = scores.topk(k, dim=-1)
            whole, into = scores.logsumexp(-1), found[number]
            into.ids[here] = ids.cpu().numpy()
            into.codes[here] = coded((values - whole[:, None]).cpu().numpy())
            into.rest[here] = _rest(scores, ids, whole)
            into.answer[here] = _of(scores, following, whole)
        return [_sound(one, one.answer) for one in found]

    def seen(
        self, texts: Sequence[Forced], bases: Sequence[Distributions]
    ) -> list[Seen | InvalidLogitsError]:
        """What the model gives to the tokens of a baseline's distributions at the same answers.

        Raises:
            CasesError, RequestError, PromptTooLongError: As ``check``; a baseline's token, too, may
                be one that the model does not know.
        """
        found = []
        for text, base in zip(texts, bases, strict=True):
            if len(base) and int(base.ids.max()) >= self.vocabulary:
                raise RequestError(
                    f"the baseline's tokens go up to {int(base.ids.max())}, and the model knows 0 "
                    f"to {self.vocabulary - 1}"
                )
            count = len(text.answer)
            found.append(
                Seen(
                    np.zeros(base.ids.shape, np.float32),
                    np.full(count, np.nan, np.float32),
                    np.full(count, np.nan, np.float32),
                    np.zeros(count, bool),
                    np.zeros(count, np.float32),
                )
            )
        for number, here, scores, following in self._slices(texts):
            named = torch.from_numpy(bases[number].ids[here].astype(np.int64)).to(scores.device)
            whole, top, into = scores.logsumexp(-1), scores.amax(-1), found[number]
            values = scores.gather(-1, named)
            into.log_probability[here] = (values - whole[:, None]).cpu().numpy()
            into.rest[here] = _rest(scores, named, whole)
            into.answer[here] = _of(scores, following, whole)
            into.agrees[here] = (values[:, 0] >= top).cpu().numpy()
            own = scores.gather(-1, following[:, None]).squeeze(-1)
            into.lead[here] = (top - own).cpu().numpy()
        return [_sound(one, one.answer) for one in found]

    def _slices(
        self, texts: Sequence[Forced]
    ) -> Iterator[tuple[int, slice, torch.Tensor, torch.Tensor]]:
        """Number, places, float32 logits [t, V], tokens [t] of a few tokens of one answer each."""
        rows = max(1, SLICE // self.vocabulary)
        for number, start, logits in self.logits(texts):
            for first in range(0, len(logits), rows):
                scores = logits[first : first + rows].float()
                here = slice(start + first, start + first + len(scores))
                following = torch.tensor(texts[number].answer[here], device=scores.device)
                if scores.isfinite().all():
                    yield number, here, scores, following


def tree_pieces(model: Any, batch: Sequence[Row], texts: Sequence[Forced]) -> Iterator[Piece]:
    """A batch whose common beginnings are computed once.

    The last token of an answer is not fed: nothing of the answer follows it.

    Args:
        model: One that attends to a tree of prompts as to each alone.
        batch: Rows of prompts, which fit in its memory together with their answers.
        texts: The row with ``index`` n is of the n-th.
    """
    tree = prefix_tree(batch)
    rows = depth_first(tree)
    memory = TreeMemory(model, tree, rows)
    most = memory.most_scored(1) - 1
    fed = [texts[row.index].answer[:-1] for row in rows]
    with memory.attached():
        for segments, logits in memory.prefill([answer[:most] for answer in fed]):
            parts = logits.split([segment.scored for segment in segments])
            for segment, part in zip(segments, parts, strict=True):
                yield Piece(rows[segment.row].index, 0, part)
        for number, (row, answer) in enumerate(zip(rows, fed, strict=True)):
            for start in range(most, len(answer), most):
                tokens = answer[start : start + most]
                place = len(row.prompt_ids) + start
                part = memory.feed([Segment(number, tokens, place, len(tokens))])
                yield Piece(row.index, start + 1, part)


def _rest(scores: torch.Tensor, ids: torch.Tensor, whole: torch.Tensor) -> Any:
    """Log of the mass of all tokens but some [t]."""
    rest = scores.scatter(-1, ids, -torch.inf).logsumexp(-1)
    return (rest - whole).cpu().numpy()


def _of(scores: torch.Tensor, tokens: torch.Tensor, whole: torch.Tensor) -> Any:
    return (scores.gather(-1, tokens[:, None]).squeeze(-1) - whole).cpu().numpy()


def _sound(found: Any, answer: Any) -> Any:
    """What was found, or that the model computed no numbers at places, which were left out."""
    if np.isfinite(answer).all():
        return found
    return InvalidLogitsError(
        "the model computed NaN or infinite scores; load it in float32, and check that the weights "
        "are whole"
    )
