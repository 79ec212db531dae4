"""Left-padded batches through transformers' own ``generate``: right for every architecture.

This is the reference path: at batch size 1 it is plain ``generate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteria

from pytest_llmprobe.case import Prompt
from pytest_llmprobe.engine.backend import Backend, Generated, OnTokens
from pytest_llmprobe.engine.planning import Row, RowSteering
from pytest_llmprobe.engine.sampling import RowSampler
from pytest_llmprobe.errors import InvalidLogitsError, ModelError, RequestError, SteeringError
from pytest_llmprobe.generation import FinishReason, GenerateConfig, Steer
from pytest_llmprobe.models.context_length import even_to
from pytest_llmprobe.models.prompts import PromptEncoder
from pytest_llmprobe.whitebox.spans import locate
from pytest_llmprobe.whitebox.steerability import check_steerable
from pytest_llmprobe.whitebox.steering import Steering, chosen_layers, left_padded, steer

if TYPE_CHECKING:
    from pytest_llmprobe.models.loading import LoadedModel


BROKEN = (
    "the model computed NaN or infinite scores for this prompt; try --llmprobe-dtype=float32, "
    "and check that the weights are whole"
)


class TransformersBackend(Backend):
    """Generates with a loaded transformers model, as ``load_model`` gave it."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.context_length = loaded.capabilities.context_length
        # Where pads change the answer, only rows on their own are right.
        self.max_batch_size = None if loaded.capabilities.left_padding else 1
        self._even_to = even_to(loaded.model.config.get_text_config())
        self.end_ids = frozenset(loaded.end_ids)
        self._prompts = PromptEncoder(loaded.tokenizer, loaded.capabilities.chat_template)

    @property
    def info(self) -> dict[str, Any]:
        """Source, revision, fingerprint, dtype, hashes, capabilities."""
        found = self.loaded.capabilities.as_dict() | {"packed_rows": self.shares_prefixes}
        return self.loaded.info | {"capabilities": found}

    def encode(self, prompt: Prompt) -> list[int]:
        """Through the chat template if there is one; the template writes BOS itself."""
        return self._prompts.ids(prompt)

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
        """A batch together, but for rows that turn others: those one by one."""
        near = [row for row in rows if not self.turns_others(row)]
        answers = iter(self.together(near, on_tokens) if near else ())
        return [
            self.together([row], on_tokens)[0] if self.turns_others(row) else next(answers)
            for row in rows
        ]

    @torch.inference_mode()
    def together(self, rows: Sequence[Row], on_tokens: OnTokens) -> list[Generated | RequestError]:
        """One ``generate`` call; every field that a checkpoint's own config could set is set."""
        config = rows[0].config
        ids, mask = self._left_pad([row.prompt_ids for row in rows])
        lengths = [len(row.prompt_ids) for row in rows]
        sampler = RowSampler(config, [row.seed for row in rows], lengths)
        stops = _RowStops(self.tokenizer, config.stop, ids.shape[1], on_tokens)
        how = rows[0].steering
        block: AbstractContextManager[Steering | None] = nullcontext()
        if how is not None:
            block = steer(self.model, layers=how.layers, phase=how.phase)
        with block as steering:
            if steering is not None:
                biases = [row.steering.bias for row in rows if row.steering is not None]
                steering.set_batch(left_padded(biases))
            output = self.model.generate(
                ids,
                attention_mask=mask,
                generation_config=GenerationConfig(
                    max_new_tokens=config.max_new_tokens,
                    do_sample=False,  # sampling is the last processor's noise
                    eos_token_id=list(self.loaded.end_ids) or None,
                    pad_token_id=self.loaded.pad_id,
                ),
                logits_processor=LogitsProcessorList([sampler]),
                stopping_criteria=[stops],
            )
        answers, broken = output[:, ids.shape[1] :].tolist(), sampler.broken.tolist()
        reach = [()] * len(rows) if steering is None else steering.reach()
        return [
            InvalidLogitsError(BROKEN)
            if broken[row]
            else replace(
                self.generated(answers[row], stops.after.get(row), config),
                steered_layers=len(reach[row]),
            )
            for row in range(len(rows))
        ]

    def turns_others(self, row: Row) -> bool:
        """Whether a row is so long that the rows of its batch would be rotated otherwise."""
        return self._even_to is not None and row.length > self._even_to

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

    def _left_pad(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, both (B, T), prompts at the right edge."""
        rows = [torch.tensor(prompt, dtype=torch.long) for prompt in prompts]
        pad = partial(pad_sequence, batch_first=True, padding_side="left")
        ids = pad(rows, padding_value=self.loaded.pad_id)
        mask = pad([torch.ones_like(row) for row in rows])
        return ids.to(self.model.device), mask.to(self.model.device)

    def generated(
        self, answer: list[int], stopped_after: int | None, config: GenerateConfig
    ) -> Generated:
        """Cut an answer at its end token or where a stop string was complete; decode it."""
        ended = next((i + 1 for i, token in enumerate(answer) if token in self.end_ids), None)
        reason: FinishReason = "length"
        if stopped_after is not None and (ended is None or stopped_after < ended):
            answer, reason = answer[:stopped_after], "stop_string"
        elif ended is not None:
            answer, reason = answer[:ended], "stop"
        text = self.tokenizer.decode(answer, skip_special_tokens=True)
        if reason == "stop_string":
            # None is found where bytes before it, broken off, take those of the stop string along.
            places = (at for stop in config.stop if (at := text.find(stop)) >= 0)
            text = text[: min(places, default=len(text))]
        return Generated(text, tuple(answer), reason)


class StopCheck:
    """Whether the end of an answer holds a stop string."""

    def __init__(self, tokenizer: Any, stop: tuple[str, ...]) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        # A stop string of c characters spans at most c tokens, of up to 4 bytes a character.
        self._tail = 4 * max(map(len, stop)) + 4

    def __call__(self, tokens: Sequence[int]) -> bool:
        """Look at the last tokens only: decoding all of them at each step would be quadratic."""
        text = self._tokenizer.decode(list(tokens[-self._tail :]), skip_special_tokens=True)
        return any(stop in text for stop in self._stop)


class _RowStops(StoppingCriteria):
    """Ends each row at its first stop string and counts the steps.

    A row that stopped here is padded only if an end-of-sequence token is configured; without one
    ``generate`` goes on with it, so the step is kept in ``after`` and the answer cut there.
    """

    def __init__(
        self, tokenizer: Any, stop: tuple[str, ...], prompt_length: int, on_tokens: OnTokens
    ) -> None:
        self._holds_stop = StopCheck(tokenizer, stop) if stop else None
        self._start = prompt_length
        self._on_tokens = on_tokens
        self.after: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        rows, length = input_ids.shape[0], input_ids.shape[1] - self._start
        self._on_tokens(rows - len(self.after))
        if self._holds_stop is not None:
            for row, answer in enumerate(input_ids[:, self._start :].tolist()):
                if row not in self.after and self._holds_stop(answer):
                    self.after[row] = length
        done = torch.zeros(rows, dtype=torch.bool, device=input_ids.device)
        done[list(self.after)] = True
        return done
