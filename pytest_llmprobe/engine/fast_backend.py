"""The fast path: shared prefixes stored once, an own decode loop, guesses checked by the model.

For models whose attention can be exchanged and sees all keys, or a window of the last ones, which
is tried when they load; all others take the path of ``TransformersBackend``, which is right for
every architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from itertools import takewhile

import torch

from pytest_llmprobe.engine.backend import Arrived, Generated, OnTokens
from pytest_llmprobe.engine.copied_prefix import Leads, Prefix, batches, way_of
from pytest_llmprobe.engine.decoding import RowState, decode
from pytest_llmprobe.engine.layer_windows import layer_windows
from pytest_llmprobe.engine.memory import TreeMemory
from pytest_llmprobe.engine.packed_weights import PackedWeights, packed_weights
from pytest_llmprobe.engine.planning import Row, RowSteering
from pytest_llmprobe.engine.prefixes import Node, depth_first, prefix_tree
from pytest_llmprobe.engine.sampling import CLOSE_CALL
from pytest_llmprobe.engine.searching import BROKEN
from pytest_llmprobe.engine.short_forms import short_forms
from pytest_llmprobe.engine.transformers_backend import TransformersBackend
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
        self._way = "" if self.shares_prefixes else way_of(loaded)
        self.copies_prefixes = bool(self._way)
        self._drafts = drafts

    @property
    def path(self) -> str:
        """How this model is run and why, in one sentence."""
        padded = self.max_batch_size is None
        run = how_run(self.shares_prefixes, self._encoder, padded, self.copies_prefixes)
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

    def copy_weights(self) -> None:
        """Make now what copies of weights are to be used, so that a fork of this process has them.

        Copies that are made after some use are not.
        """
        if self.shares_prefixes and isinstance(self._packed, PackedWeights):
            with self._packed.active():
                pass

    def unending(self) -> FastBackend:
        """Without guesses, too."""
        same = super().unending()
        assert isinstance(same, FastBackend)
        same._drafts = False
        if self.shares_prefixes:
            same.__dict__["_packed"] = self._packed  # measured once
        return same

    def together(
        self, rows: Sequence[Row], on_tokens: OnTokens, arrived: Arrived
    ) -> list[Generated | RequestError]:
        """One batch; close calls in float32 are decided alone, ties by plain ``generate``."""
        if not self.shares_prefixes or self.turns_others(rows[0]):
            if self.copies_prefixes:
                return self._copied(rows, on_tokens, arrived)
            return super().together(rows, on_tokens, arrived)
        drafts = [self._draft(row) for row in rows]
        packed = self._packed
        alone = len(rows) == 1 and not (isinstance(packed, PackedWeights) and packed.in_use)

        def ended(state: RowState) -> None:
            if not state.broken and not self._is_close(state, alone):
                arrived(state.row, self._said(state))

        states = self._decoded(
            rows, drafts, on_tokens, look_up=self._drafts, faster=not alone, on_end=ended
        )
        if any(self._is_close(state, alone) for state in states):
            for state in states:
                ended(state)
        return [self._settled(state, alone) for state in states]

    def _copied(
        self, rows: Sequence[Row], on_tokens: OnTokens, arrived: Arrived
    ) -> list[Generated | RequestError]:
        """Batches on copies of what prompts share; close calls are decided by the row alone."""
        found: dict[int, Generated | RequestError] = {}
        tree = prefix_tree(rows)
        if rows[0].steering is not None:  # its biases are for whole prompts
            tree = Node(0, (), tuple(rows), ())
        for prefix, batch in batches(self.model, tree, Prefix(self.model, self._way)):
            for row, answer in self._watched(batch, on_tokens, arrived, prefix):
                found[row.index] = answer
                if len(found) < len(rows) and isinstance(answer, Generated):
                    arrived(row, answer)
        return [found[row.index] for row in rows]

    def _watched(
        self, rows: Sequence[Row], on_tokens: OnTokens, arrived: Arrived, prefix: Prefix
    ) -> Iterator[tuple[Row, Generated | RequestError]]:
        watcher, places = Leads(), {row.index: place for place, row in enumerate(rows)}
        checked = prefix.length > 0 and self.model.dtype == torch.float32

        def is_close(row: Row, answer: Generated | RequestError) -> bool:
            if not checked or not isinstance(answer, Generated):
                return False
            return watcher.least(places[row.index], len(answer.token_ids)) < CLOSE_CALL

        def ended(row: Row, answer: Generated) -> None:
            if not is_close(row, answer):
                arrived(row, answer)

        watching, shared = (watcher if checked else None), (prefix if prefix.length else None)
        answers = self.generated(rows, on_tokens, ended, watching, shared)
        for row, answer in zip(rows, answers, strict=True):
            if is_close(row, answer):
                (answer,) = self.generated([row], lambda _: None, lambda row, answer: None)
                if isinstance(answer, Generated):
                    answer = replace(answer, redone=True, wall_s=None)
            yield row, answer

    def _is_close(self, state: RowState, alone: bool) -> bool:
        """Whether a row's choices could turn with the shape of a pass."""
        least = TIE if alone else CLOSE_CALL
        return bool(self.model.dtype == torch.float32 and state.margin < least)

    def _settled(self, state: RowState, alone: bool) -> Generated | RequestError:
        """The row's answer; after a close call, the one of the model's own layers for it alone.

        The answer so far is the draft, so a few passes over prompt and answer decide nearly always.
        Nobody watches a row that is redone.
        """
        if self._is_close(state, alone) and not alone:
            row = state.row
            draft = [] if _prompt_alone(row) else state.tokens[: row.room - 1]
            (decided,) = self._decoded([row], [draft], lambda _: None, look_up=False, faster=False)
            answer = self._settled(decided, alone=True)
            if isinstance(answer, RequestError):
                return answer
            return replace(answer, redone=True, wall_s=None)  # it waited for its batch before
        if self._is_close(state, alone):
            return super().together([state.row], lambda _: None, lambda row, answer: None)[0]
        return InvalidLogitsError(BROKEN) if state.broken else self._said(state)

    def _said(self, state: RowState) -> Generated:
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
        faster: bool,
        on_end: Callable[[RowState], None] = lambda _: None,
    ) -> list[RowState]:
        tree = prefix_tree(rows)
        ordered = depth_first(tree)
        draft_of = {row.index: draft for row, draft in zip(rows, drafts, strict=True)}
        guessed = [draft_of[row.index] for row in ordered]
        memory = TreeMemory(self.model, tree, ordered)
        weights: AbstractContextManager[None] = nullcontext()
        forms: AbstractContextManager[None] = nullcontext()
        if faster:
            forms = short_forms(self.model).active()
            if isinstance(self._packed, PackedWeights):
                weights = self._packed.active()
        with memory.attached(), weights, forms:
            states = decode(memory, ordered, guessed, self.endings, on_tokens, look_up, on_end)
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
