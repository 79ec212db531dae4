"""Left-padded batches through transformers' own ``generate``: right for every architecture.

This is the reference path: at batch size 1 it is plain ``generate``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria

from pytest_llmprobe.case import Prompt
from pytest_llmprobe.engine.backend import Arrived, Backend, Generated, OnTokens
from pytest_llmprobe.engine.copied_prefix import Prefix
from pytest_llmprobe.engine.endings import AnswerReader, Endings
from pytest_llmprobe.engine.log_likelihood import answers
from pytest_llmprobe.engine.planning import Row, RowSteering
from pytest_llmprobe.engine.sampling import RowSampler
from pytest_llmprobe.engine.searching import BROKEN, searched_tokens
from pytest_llmprobe.errors import InvalidLogitsError, ModelError, RequestError, SteeringError
from pytest_llmprobe.generation import Steer
from pytest_llmprobe.models.context_length import forget_longest, is_turned
from pytest_llmprobe.models.prompts import PromptEncoder
from pytest_llmprobe.whitebox.spans import locate
from pytest_llmprobe.whitebox.steerability import check_steerable
from pytest_llmprobe.whitebox.steering import Steering, chosen_layers, left_padded, steer

if TYPE_CHECKING:
    from pytest_llmprobe.models.loading import LoadedModel


class TransformersBackend(Backend):
    """Generates with a loaded transformers model, as ``load_model`` gave it."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.context_length = loaded.capabilities.context_length
        # Where pads change the answer, only rows on their own are right.
        self.max_batch_size = None if loaded.capabilities.left_padding else 1
        self._encoder = loaded.capabilities.encoder
        self.context_is_shared = not self._encoder
        self.endings = Endings(
            loaded.tokenizer, frozenset(loaded.end_ids), frozenset(loaded.turn_ids), loaded.thinking
        )
        self.thinks = loaded.thinking.thinks
        self._prompts = PromptEncoder.of(loaded)

    @property
    def info(self) -> dict[str, Any]:
        """Source, revision, fingerprint, dtype, hashes, capabilities."""
        found = self.loaded.capabilities.as_dict() | {"packed_rows": self.shares_prefixes}
        return self.loaded.info | {"capabilities": found}

    def encode(self, prompt: Prompt) -> list[int]:
        """Through the chat template if there is one; the template writes BOS itself."""
        return self._prompts.ids(prompt)

    def encode_continuation(self, prompt: Prompt, continuation: str) -> tuple[list[int], list[int]]:
        """As ``PromptEncoder.pair``."""
        return self._prompts.pair(prompt, continuation)

    def steering(self, prompt: Prompt, steer: Steer) -> RowSteering:
        """The bias of the spans' tokens, in the layers that can be steered."""
        try:
            layers = chosen_layers(check_steerable(self.model), steer.layers)
            found = locate(self.loaded, prompt, steer.spans)
        except (ModelError, RequestError) as error:
            raise SteeringError(str(error)) from None
        texts = tuple(span.text for span in found.spans)
        return RowSteering(found.bias(steer.delta), tuple(sorted(layers)), steer.phase, texts)

    def generate(self, rows: Sequence[Row], on_tokens: OnTokens) -> list[Generated | RequestError]:
        """As ``receive``."""
        return self.receive(rows, on_tokens, _nobody)

    def receive(
        self, rows: Sequence[Row], on_tokens: OnTokens, arrived: Arrived
    ) -> list[Generated | RequestError]:
        """A batch together, but for rows that turn others or are searched for: those one by one."""
        if any(row.continuation for row in rows):
            forget_longest(self.model)
            alike = not any(map(self.turns_others, rows))
            return answers(self.loaded, rows, tree=self.shares_prefixes and alike)
        apart = [row.config.searches or self.turns_others(row) for row in rows]
        near = [row for row, alone in zip(rows, apart, strict=True) if not alone]
        far = [[row] for row, alone in zip(rows, apart, strict=True) if alone]
        found: dict[int, Generated | RequestError] = {}
        for batch in [near] * bool(near) + far:
            forget_longest(self.model)
            if batch[0].config.searches:
                said = [self.searched(batch[0], on_tokens)]
            else:
                said = self.together(batch, on_tokens, arrived)
            for row, answer in zip(batch, said, strict=True):
                found[row.index] = answer
                if len(found) < len(rows) and isinstance(answer, Generated):
                    arrived(row, answer)
        return [found[row.index] for row in rows]

    def together(
        self, rows: Sequence[Row], on_tokens: OnTokens, arrived: Arrived
    ) -> list[Generated | RequestError]:
        """One ``generate`` call; every field that a checkpoint's own config could set is set."""
        return self.generated(rows, on_tokens, arrived)

    def searched(self, row: Row, on_tokens: OnTokens) -> Generated | RequestError:
        """A row whose answer is searched for, with beams or by contrast, alone."""
        try:
            with self._steered([row]) as steering:
                tokens = searched_tokens(self.loaded, row)
        except RequestError as error:
            return error
        reader = self.endings.reader(row)
        for token in tokens:
            if reader.ended is None:
                reader.add(token)
        on_tokens(len(tokens))
        reach = () if steering is None else steering.reach()[0]
        return replace(reader.generated(), steered_layers=len(reach))

    @torch.inference_mode()
    def generated(
        self,
        rows: Sequence[Row],
        on_tokens: OnTokens,
        arrived: Arrived,
        watcher: LogitsProcessor | None = None,
        prefix: Prefix | None = None,
    ) -> list[Generated | RequestError]:
        """As ``together``; a ``watcher`` sees the scores that decide.

        With a ``prefix``, which all rows share, prompts have one length.
        """
        config = rows[0].config
        ids, mask = self._padded([row.prompt_ids for row in rows])
        cached: dict[str, Any] = {}
        if prefix is not None:
            ids, cached = prefix.asked(ids)
            mask = torch.ones_like(ids)
        # A decoder behind an encoder begins with a token of its own.
        lengths = [1 if self._encoder else len(row.prompt_ids) for row in rows]
        prompts = [row.prompt_ids for row in rows]
        sampler = RowSampler(config, [row.seed for row in rows], lengths, prompts)
        with self._steered(rows) as steering:

            def answer_of(place: int) -> Generated | None:
                if bool(sampler.broken[place]):
                    return None
                reach = () if steering is None else steering.reach()[place]
                return replace(readers.rows[place].generated(), steered_layers=len(reach))

            def ended(place: int) -> None:
                if (answer := answer_of(place)) is not None:
                    arrived(rows[place], answer)

            readers = _RowReaders([self.endings.reader(row) for row in rows], on_tokens, ended)
            self.model.generate(
                ids,
                attention_mask=mask,
                generation_config=GenerationConfig(
                    max_new_tokens=max(row.room for row in rows),
                    do_sample=False,  # sampling is the last processor's noise
                    eos_token_id=list(self.loaded.end_ids) or None,
                    pad_token_id=self.loaded.pad_id,
                ),
                logits_processor=LogitsProcessorList([sampler, *([watcher] if watcher else [])]),
                stopping_criteria=[readers],
                **cached,
            )
        return [answer_of(place) or InvalidLogitsError(BROKEN) for place in range(len(rows))]

    def unending(self) -> TransformersBackend:
        """The same without what ends an answer, so that each takes all its room: for timing."""
        same = copy(self)
        same.loaded = replace(self.loaded, end_ids=(), turn_ids=())
        same.endings = Endings(self.tokenizer, frozenset())
        return same

    @contextmanager
    def _steered(self, rows: Sequence[Row]) -> Iterator[Steering | None]:
        """Steers the rows of a batch in the block, if they are to be."""
        how = rows[0].steering
        if how is None:
            yield None
            return
        with steer(self.model, layers=how.layers, phase=how.phase) as steering:
            biases = [row.steering.bias for row in rows if row.steering is not None]
            steering.set_batch(left_padded(biases))
            yield steering

    def turns_others(self, row: Row) -> bool:
        """Whether a row is so long that the rows of its batch would be rotated otherwise."""
        return is_turned(self.model, row.length)

    def is_out_of_memory(self, error: Exception) -> bool:
        """Accelerate's list of messages, and the two that it does not know."""
        return (
            isinstance(error, torch.OutOfMemoryError | MemoryError)
            or should_reduce_batch_size(error)
            or "CUBLAS_STATUS_ALLOC_FAILED" in str(error)
        )

    def release_memory(self) -> None:
        """Collect garbage and empty the device's cache."""
        clear_device_cache(garbage_collection=True)

    def _padded(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, both (B, T), prompts at the right edge, at the left one for an encoder."""
        rows = [torch.tensor(prompt, dtype=torch.long) for prompt in prompts]
        side = "right" if self._encoder else "left"
        pad = partial(pad_sequence, batch_first=True, padding_side=side)
        ids = pad(rows, padding_value=self.loaded.pad_id)
        mask = pad([torch.ones_like(row) for row in rows])
        return ids.to(self.model.device), mask.to(self.model.device)


def _nobody(row: Row, answer: Generated) -> None:
    """Nobody wants to know before the batch is over."""


class _RowReaders(StoppingCriteria):
    """Ends each row where its answer ends.

    A row that has ended is padded only if an end-of-sequence token is configured; without one
    ``generate`` goes on with it, and its reader reads no more.
    """

    def __init__(
        self, rows: Sequence[AnswerReader], on_tokens: OnTokens, on_end: Callable[[int], None]
    ) -> None:
        self.rows, self._on_tokens, self._on_end = rows, on_tokens, on_end

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        going_on = [row for row, reader in enumerate(self.rows) if reader.ended is None]
        self._on_tokens(len(going_on))
        for row, token in zip(going_on, input_ids[going_on, -1].tolist(), strict=True):
            self.rows[row].add(token)
        ended = [reader.ended is not None for reader in self.rows]
        for row in going_on if not all(ended) else ():
            if ended[row]:
                self._on_end(row)
        return torch.tensor(ended, device=input_ids.device)
