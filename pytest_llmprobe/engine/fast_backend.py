"""The fast path: shared prefixes stored once, an own decode loop, guesses checked by the model.

For models whose attention can be exchanged and sees all keys, or a window of the last ones, which
is tried when they load; all others take the path of ``TransformersBackend``, which is right for
every architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from itertools import takewhile

import torch

from pytest_llmprobe.engine.backend import Generated, OnTokens
from pytest_llmprobe.engine.decoding import RowState, decode
from pytest_llmprobe.engine.layer_windows import layer_windows
from pytest_llmprobe.engine.memory import TreeMemory
from pytest_llmprobe.engine.packed_weights import PackedWeights, packed_weights
from pytest_llmprobe.engine.planning import Row, RowSteering
from pytest_llmprobe.engine.prefixes import depth_first, prefix_tree
from pytest_llmprobe.engine.sampling import CLOSE_CALL
from pytest_llmprobe.engine.transformers_backend import BROKEN, TransformersBackend
from pytest_llmprobe.engine.tree_trial import packs_rows
from pytest_llmprobe.errors import InvalidLogitsError, RequestError
from pytest_llmprobe.models.description import how_run
from pytest_llmprobe.models.loading import LoadedModel

TIE = 3e-5
"""A lead under this could turn with the shape of a pass; such a row goes through ``generate``."""


class FastBackend(TransformersBackend):
    """Generates with a loaded transformers model, in its own loop where the model allows it.

    Without ``drafts`` it uses neither them nor look-ups in the prompt; the tokens are the same.
    """

    def __init__(self, loaded: LoadedModel, drafts: bool = True) -> None:
        super().__init__(loaded)
        self.shares_prefixes = packs_rows(loaded)
        self._drafts = drafts

    @property
    def path(self) -> str:
        """How this model is run and why, in one sentence."""
        run = how_run(self.shares_prefixes, self._encoder, self.max_batch_size is None)
        if not self.shares_prefixes:
            return run
        weights = self._packed
        said = weights if isinstance(weights, str) else weights.described
        return f"{run}; weights {said}"

    @cached_property
    def _packed(self) -> PackedWeights | str:
        """Copied weights, or why there are none; measured when they are first wanted."""
        if self.loaded.spec.in_memory:
            return "not copied: their owner may change them"
        return packed_weights(self.model)

    def together(self, rows: Sequence[Row], on_tokens: OnTokens) -> list[Generated | RequestError]:
        """One batch; close calls in float32 are decided alone, ties by plain ``generate``."""
        if not self.shares_prefixes or self.turns_others(rows[0]):
            return super().together(rows, on_tokens)
        drafts = [self._draft(row) for row in rows]
        packed = isinstance(self._packed, PackedWeights)
        states = self._decoded(rows, drafts, on_tokens, look_up=self._drafts, packed=packed)
        return [self._settled(state, len(rows) == 1 and not packed) for state in states]

    def _settled(self, state: RowState, alone: bool) -> Generated | RequestError:
        """The row's answer; after a close call, the one of the model's own products for it alone.

        The answer so far is the draft, so a few passes over prompt and answer decide nearly always.
        Nobody watches a row that is redone.
        """
        if self.model.dtype == torch.float32 and state.margin < CLOSE_CALL and not alone:
            row = state.row
            draft = [] if _prompt_alone(row) else state.tokens[: row.room - 1]
            (decided,) = self._decoded([row], [draft], lambda _: None, look_up=False, packed=False)
            answer = self._settled(decided, alone=True)
            if isinstance(answer, RequestError):
                return answer
            return replace(answer, redone=True, wall_s=None)  # it waited for its batch before
        if self.model.dtype == torch.float32 and state.margin < TIE:
            return super().together([state.row], lambda _: None)[0]
        if state.broken:
            return InvalidLogitsError(BROKEN)
        answer = replace(state.reader.generated(), wall_s=state.wall_s)
        how = state.row.steering
        return answer if how is None else replace(answer, steered_layers=self._reached(how))

    def _reached(self, how: RowSteering) -> int:
        """Layers in which the prompt's last token sees steered ones."""
        length, known = len(how.bias), layer_windows(self.model) or {}
        last = max((place for place, bias in enumerate(how.bias) if bias), default=-1)
        seen = [known.get(layer, length) >= length - last for layer in how.layers]
        return sum(seen) if last >= 0 else 0

    def _decoded(
        self,
        rows: Sequence[Row],
        drafts: Sequence[Sequence[int]],
        on_tokens: OnTokens,
        *,
        look_up: bool,
        packed: bool,
    ) -> list[RowState]:
        tree = prefix_tree(rows)
        ordered = depth_first(tree)
        draft_of = {row.index: draft for row, draft in zip(rows, drafts, strict=True)}
        guessed = [draft_of[row.index] for row in ordered]
        memory = TreeMemory(self.model, tree, ordered)
        weights: AbstractContextManager[None] = nullcontext()
        if packed and isinstance(self._packed, PackedWeights):
            weights = self._packed.active()
        with memory.attached(), weights:
            states = decode(memory, ordered, guessed, self.endings, on_tokens, look_up)
        state_of = {state.row.index: state for state in states}
        return [state_of[row.index] for row in rows]

    def _draft(self, row: Row) -> list[int]:
        """The token ids of the guessed answer, short enough to leave one to say.

        A text is the right answer, which a model may put differently; token ids are what a model
        did say, if the model has them. Where prompts alone are steered none is tried: every token
        would need a mask of its own.
        """
        if row.draft is None or _prompt_alone(row) or not self._drafts:
            return []
        ids, most = row.draft, row.room - 1
        if isinstance(ids, str) and row.thinking:
            return []  # a thought comes first
        if isinstance(ids, str):
            try:
                said = self.tokenizer(ids[: 8 * most], add_special_tokens=False)["input_ids"]
            except (TypeError, ValueError):  # no Unicode text: nothing that a model could say
                said = []
            ids = (*said, *self.loaded.end_ids[:1])
        known = range(self.model.get_input_embeddings().num_embeddings)
        return list(takewhile(known.__contains__, ids[:most]))


def _prompt_alone(row: Row) -> bool:
    """Whether a row's prompt is steered and its answer is not."""
    return row.steering is not None and row.steering.phase == "prefill"
