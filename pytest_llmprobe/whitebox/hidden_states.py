"""Hidden states of texts whose tokens are known: one pass over prompt and answer together."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice, takewhile
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from pytest_llmprobe.case import RawPrompt
from pytest_llmprobe.errors import (
    InvalidLogitsError,
    PromptTooLongError,
    RequestError,
    SettingsError,
    UnsupportedError,
)
from pytest_llmprobe.models.context_length import forget_longest, is_turned
from pytest_llmprobe.models.date_lines import Dates, render_prompt
from pytest_llmprobe.models.prompts import PromptEncoder

if TYPE_CHECKING:
    from pytest_llmprobe.models.loading import LoadedModel

States: TypeAlias = npt.NDArray[np.float32]

TOKEN_BUDGET = 8192
"""Rows times longest text of a batch at most."""

STATE_BYTES = 2**28
"""Bytes of a batch's hidden states at most, for models where few tokens have many of them."""


def layer_indices(layers: Sequence[int], available: int) -> tuple[int, ...]:
    """Layers counted from 0 (embeddings) to L (after the final norm), in the order given.

    Args:
        layers: Indices into transformers' tuple of L + 1 hidden states; -1 is the last.
        available: How many there are, L + 1.

    Raises:
        SettingsError: There is no such layer, one is named twice, or none is.
    """
    if absent := [layer for layer in layers if not -available <= layer < available]:
        raise SettingsError(
            f"layer {absent[0]}: this model has hidden states 0 to {available - 1}, or "
            f"{-available} to -1"
            if available
            else f"layer {absent[0]}: this model returns no hidden states"
        )
    counted = tuple(layer % available for layer in layers)
    if len(set(counted)) < len(counted) or not counted:
        raise SettingsError(f"layers {list(layers)}: name one layer at least, and none twice")
    return counted


def hidden_states(
    loaded: LoadedModel,
    texts: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    layers: Sequence[int] = (-1,),
    token_budget: int = TOKEN_BUDGET,
) -> Iterator[States]:
    """Hidden states of chosen layers at chosen positions, text after text.

    They are those that the model has while it generates the same tokens: in float32 the largest
    difference was 1e-6 of the largest state on 20 architectures, 4e-6 on Mamba-2, 2e-5 on Mamba.
    Texts are padded on the right, where causal models do not see the pads; a text that is rotated
    by its length (``even_to``) is alone. Only one batch is in memory at a time; neighbours of like
    length make full batches.

    Args:
        loaded: The model.
        texts: Token ids, special tokens included.
        positions: For each text, the positions whose states are wanted, from 0.
        layers: Indices as for `layer_indices`; -1 is after the final norm, the others are not
            normed.
        token_budget: Rows times longest text of a batch at most; one text may exceed it.

    Returns:
        Yields for each text an array [positions, layers * hidden size], float32, the layers side
        by side in the order given.

    Raises:
        InvalidLogitsError: A state is NaN or infinite.
        PromptTooLongError: A text is longer than the model's context.
        SettingsError: There is no such layer.
    """
    counted = layer_indices(layers, loaded.capabilities.hidden_states)
    longest, limit = max(map(len, texts), default=0), loaded.capabilities.context_length
    if limit is not None and longest > limit:
        raise PromptTooLongError(
            f"a text of {longest} tokens does not fit the model's context of {limit}; use a "
            "shorter prompt or fewer new tokens"
        )
    if not all(texts):
        raise RequestError("a text without tokens has no hidden states")
    width = len(counted) * loaded.model.config.get_text_config().hidden_size
    return _batches(loaded, texts, positions, counted, min(token_budget, STATE_BYTES // 4 // width))


def _batches(
    loaded: LoadedModel,
    texts: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    layers: Sequence[int],
    budget: int,
) -> Iterator[States]:
    start = 0
    while start < len(texts):
        end = _batch_end(loaded.model, texts, start, budget)
        try:
            batch = _one_pass(loaded, texts[start:end], positions[start:end], layers)
        except torch.OutOfMemoryError:
            if end - start == 1:
                raise
            batch, budget = None, budget // 2
        if batch is None:  # outside the except block: its traceback keeps the tensors alive
            torch.cuda.empty_cache()
            continue
        yield from batch
        start = end


def _batch_end(model: Any, texts: Sequence[Sequence[int]], start: int, budget: int) -> int:
    """Where a full batch ends; a text that is rotated by its length would turn the others."""
    longest = accumulate(map(len, islice(texts, start, None)), max)
    sizes = (rows * width for rows, width in enumerate(longest, 1))
    end = start + max(1, sum(1 for _ in takewhile(lambda size: size <= budget, sizes)))
    turned = (at for at in range(start, end) if is_turned(model, len(texts[at])))
    return max(next(turned, end), start + 1)


@torch.inference_mode()
def _one_pass(
    loaded: LoadedModel,
    texts: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    layers: Sequence[int],
) -> list[States]:
    model = loaded.model
    forget_longest(model)
    ids = torch.full((len(texts), max(map(len, texts))), loaded.pad_id)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    inputs: dict[str, Any] = {"attention_mask": mask.to(model.device), "use_cache": False}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        inputs["logits_to_keep"] = 1  # the states are wanted and not [T, vocabulary] of logits
    output = model(ids.to(model.device), output_hidden_states=list(layers), **inputs)
    states = []
    for row, at in enumerate(positions):
        where = torch.tensor(list(at), dtype=torch.long)
        parts = [output.hidden_states[layer][row][where] for layer in layers]
        found = torch.cat([part.float().cpu() for part in parts], dim=-1).numpy()
        if not np.isfinite(found).all():
            raise InvalidLogitsError(
                f"the model computed NaN or infinite hidden states in {model.dtype}; try "
                "--dtype float32, and check that the weights are whole"
            )
        states.append(found)
    return states


class HiddenStateReader:
    """A model as the output-length experiment sees it: prompts, states at each step, token texts.

    The layers are as for `hidden_states`, None for all of them; `models.date_lines` says what may
    become of the date that a chat template writes.

    Raises:
        SettingsError: There is no such layer.
        UnsupportedError: An encoder reads the model's prompts.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        layers: Sequence[int] | None = (-1,),
        dates: Dates = "leave out",
    ) -> None:
        if loaded.capabilities.encoder:
            raise UnsupportedError(
                f"{loaded.spec.name!r} has an encoder and a decoder, and no row of states that "
                "leads from prompt to answer"
            )
        available = loaded.capabilities.hidden_states
        self.layers = layer_indices(range(available) if layers is None else layers, available)
        self.hidden_size: int = loaded.model.config.get_text_config().hidden_size
        self._loaded, self._dates = loaded, dates

    @property
    def info(self) -> dict[str, Any]:
        """The model's name, where it is from, and what becomes of dates."""
        return self._loaded.info | {"name": self._loaded.spec.name, "dates": self._dates}

    def prompt(self, text: str) -> RawPrompt:
        """A user's message as the model reads it, without the date of today.

        Raises:
            RequestError: The chat template refuses it, or writes a date in an unknown form.
        """
        return render_prompt(self._loaded.tokenizer, text, self._dates)

    def raw(self, text: str) -> RawPrompt:
        """A text that the model goes on with, without a chat template.

        Raises:
            RequestError: It holds a token that the model lacks.
        """
        ids = PromptEncoder.of(self._loaded).ids(RawPrompt(text))
        return RawPrompt(text, tuple(ids))

    def states(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
    ) -> Iterator[States]:
        """For each answer of T tokens an array [T, layers * hidden size].

        Row t is the state that token t of the answer was chosen from: row 0 is at the prompt's
        last position, and the last token of an answer has no state of its own.
        """
        texts = [(*prompt, *answer[:-1]) for prompt, answer in zip(prompts, answers, strict=True)]
        pairs = zip(prompts, texts, strict=True)
        steps = [range(len(prompt) - 1, len(text)) for prompt, text in pairs]
        return hidden_states(self._loaded, texts, steps, self.layers)

    def token_text(self, token_id: int) -> str:
        """The text of one token, special ones included."""
        text: str = self._loaded.tokenizer.decode([token_id])
        return text
