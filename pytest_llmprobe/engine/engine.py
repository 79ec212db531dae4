"""Requests in, completions out: encode, plan, run, put back in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.case import Prompt, RawPrompt, check_prompt
from pytest_llmprobe.engine.backend import (
    NO_LIKELIHOODS,
    AnswersRowByRow,
    Arrived,
    Backend,
    Generated,
    ScoresContinuations,
)
from pytest_llmprobe.engine.completion_file import NONE, Outcome, Outcomes, told_before
from pytest_llmprobe.engine.completion_store import CompletionStore
from pytest_llmprobe.engine.completions import completion_of
from pytest_llmprobe.engine.meter import Meter, OnProgress
from pytest_llmprobe.engine.planning import Room, Row, RowSteering, plan
from pytest_llmprobe.errors import (
    BudgetError,
    CasesError,
    PromptTooLongError,
    RequestError,
    SettingsError,
    UnsupportedError,
)
from pytest_llmprobe.generation import Completion, GenerateConfig, Request, Timings
from pytest_llmprobe.models.chat_text import is_prefill

if TYPE_CHECKING:
    from pytest_llmprobe.models.loading import LoadedModel


SCORED_ROWS = 512
"""Given continuations of a batch with shared prefixes at most: they are not decoded."""


class Engine:
    """Answers requests on one model, in batches that it plans itself.

    Args:
        model: A loaded model, or anything that follows the Backend protocol; with ``tokenizer`` a
            transformers model in memory, which each call gives back as it was: in its mode, with
            its generation config, the random generators untouched.
        tokenizer: Of a model in memory.
        batch_size: Rows of a batch; None fills a token budget. 1 is the reference path.
        token_budget: Rows times length of a batch at most; None: as much as suits the machine.
        drafts: Guess tokens and let the model check them; the answers are the same without.

    Attributes:
        store: Where answers are kept, and looked for before the model is asked; None: nowhere.
        after_batch: Called after each batch.
    """

    def __init__(
        self,
        model: LoadedModel | Backend | Any,
        *,
        tokenizer: Any = None,
        batch_size: int | None = None,
        token_budget: int | None = None,
        drafts: bool = True,
    ) -> None:
        for name, given in (("batch_size", batch_size), ("token_budget", token_budget)):
            if given is not None and given < 1:
                raise SettingsError(f"{name}={given}: it must be 1 or more, or None for auto")
        self._borrowed: Callable[[], AbstractContextManager[None]] = nullcontext
        if isinstance(model, Backend):
            self.backend, room = model, Room()
        else:
            from pytest_llmprobe.engine.in_process import backend_of, loaded_model  # torch

            loaded, self._borrowed = loaded_model(model, tokenizer)
            with self._borrowed():
                self.backend, room = backend_of(loaded, batch_size, drafts)
        self.batch_size = batch_size
        self.token_budget, self._packed_rows = token_budget or room.tokens, room.rows
        self.store: CompletionStore | None = None
        self.after_batch: Sequence[Callable[[], object]] = ()
        self._limits: dict[int, int] = {}

    def generate(
        self, requests: Sequence[Request | Prompt], config: GenerateConfig | None = None
    ) -> list[Completion]:
        """Completions in the order of the requests.

        Args:
            requests: Requests, or prompts that are all generated with ``config``.
            config: For bare prompts; greedy with 64 new tokens if left out.

        Raises:
            RequestError: A request cannot be answered, for instance because it does not fit the
                model's context. ``attempt`` keeps the answers of the others.
            SteeringError: A request is to be steered and this model cannot be.
        """
        if isinstance(requests, str | Request):
            raise TypeError("generate takes a list of prompts or requests")
        config = config or GenerateConfig()
        asked = [r if isinstance(r, Request) else Request(r, config) for r in requests]
        completions = []
        for outcome in self.attempt(asked):
            if isinstance(outcome, RequestError):
                raise outcome
            completions.append(outcome)
        return completions

    def attempt(
        self, requests: Sequence[Request], on_progress: OnProgress | None = None
    ) -> list[Outcome]:
        """Like ``generate``, with the error of each request that failed in its place."""
        with self._borrowed():
            return self._attempt(requests, on_progress)

    def _attempt(
        self, requests: Sequence[Request], on_progress: OnProgress | None
    ) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        rows: list[Row] = []
        for index, request in enumerate(requests):
            found = None if self.store is None else self.store.find(request)
            if found is not None:
                outcomes[index] = found
                continue
            try:
                rows.append(self._row(index, request))
            except RequestError as error:
                outcomes[index] = error
                self._keep(requests, {index: error})
        meter = Meter(len(requests), len(outcomes), on_progress)
        batches = self._plan(rows)
        while batches:
            batch = batches.pop(0)
            early: dict[int, Outcome] = {}
            answers = self._run(requests, batch, meter, early)
            if isinstance(answers, str):
                outcomes |= early
                left = [row for row in batch if row.index not in early]
                if left and len(batch) > 1:
                    self._shrink(left)
                    batches = self._plan([row for rest in (left, *batches) for row in rest])
                    continue
                words = f"out of memory with one row: {answers}"
                answers = {row.index: RequestError(words) for row in left}
            outcomes |= answers
            self._keep(requests, answers, early)
            meter.add(0, len(answers.keys() - early.keys()))
            for call in self.after_batch:
                call()
        return [outcomes[index] for index in range(len(requests))]

    def _keep(self, requests: Sequence[Request], outcomes: Outcomes, told: Outcomes = NONE) -> None:
        if self.store is not None:
            asked = {i: o for i, o in outcomes.items() if not isinstance(o, BudgetError)}
            kept = [i for i, outcome in asked.items() if told_before(told.get(i), outcome)]
            self.store.keep_times((requests[i], asked.pop(i)) for i in kept)
            self.store.keep((requests[i], outcome) for i, outcome in asked.items())

    def _plan(self, rows: Sequence[Row]) -> list[list[Row]]:
        limits = (self.batch_size, self.backend.max_batch_size)
        size = min((limit for limit in limits if limit is not None), default=None)
        backend, most = self.backend, self._packed_rows
        share = backend.shares_prefixes or getattr(backend, "copies_prefixes", False)
        scored = [row for row in rows if row.continuation]
        others = [row for row in rows if not row.continuation]
        batches = plan(others, size, self.token_budget, share, self._limits, most)
        most = max(most, SCORED_ROWS)  # choices of one prompt are nearly free
        return batches + plan(scored, size, self.token_budget, share, self._limits, most)

    def _shrink(self, batch: Sequence[Row]) -> None:
        """Plan at most half of what did not fit from here on; it would not fit again.

        The rows of such a length are limited, since a shared prefix is outside the budget.
        """
        half, longest = (len(batch) + 1) // 2, max(row.length for row in batch)
        self._limits[longest] = min(half, self._limits.get(longest, half))
        self.token_budget = min(self.token_budget, half * longest)

    def _row(self, index: int, request: Request) -> Row:
        try:
            if request.continuation is None or request.prompt != RawPrompt(""):
                check_prompt(request.prompt)
        except CasesError as error:
            raise RequestError(str(error)) from None
        if request.continuation is not None:
            return self._scored_row(index, request.prompt, request.continuation)
        ids: Any = self.backend.encode(request.prompt)
        room, limit = request.config.max_new_tokens, self.backend.context_length
        shared = getattr(self.backend, "context_is_shared", True)
        if limit is not None and not shared:
            _check_apart(len(ids), room, limit)
        elif limit is not None and len(ids) + room > limit:
            raise PromptTooLongError(
                f"the prompt has {len(ids)} tokens and the answer may have {room}, together "
                f"{len(ids) + room}; the model's context is {limit}. Use smaller cases, fewer "
                "max_new_tokens, or a model with a longer context"
            )
        thinking = self._thinking_room(request)
        if limit is not None and shared:
            thinking = min(thinking, limit - len(ids) - room)
        steering = self._steering(request)
        ids = ids if isinstance(ids, bytes) else tuple(ids)
        draft = None if self.store is None else self.store.draft(request)  # an earlier run's answer
        draft = request.draft if draft is None else draft
        return Row(index, ids, request.config, request.seed, draft, steering, thinking)

    def _scored_row(self, index: int, prompt: Prompt, continuation: str) -> Row:
        """A row whose continuation is given; a text from its beginning may have any length."""
        backend = self.backend
        if not isinstance(backend, ScoresContinuations):
            raise UnsupportedError(NO_LIKELIHOODS)
        given: Any = backend.encode_continuation(prompt, continuation)
        ids: Any
        following: Any
        ids, following = (part if isinstance(part, bytes) else tuple(part) for part in given)
        limit, fed = backend.context_length, len(ids) + len(following) - 1
        if limit is not None and fed > limit and prompt != RawPrompt(""):
            raise PromptTooLongError(
                f"the prompt has {len(ids)} tokens and its continuation {len(following)}, and the "
                f"model's context is {limit}: shorten them, or use a model with a longer context"
            )
        one = GenerateConfig(max_new_tokens=1)
        return Row(index, ids, one, continuation=following, alone=prompt == RawPrompt(""))

    def _thinking_room(self, request: Request) -> int:
        """Tokens for a thought, less where the context is full; a text that goes on has none."""
        prompt = request.prompt
        goes_on = isinstance(prompt, RawPrompt) or is_prefill(prompt)
        return request.config.thinking_tokens if self.backend.thinks and not goes_on else 0

    def _steering(self, request: Request) -> RowSteering | None:
        if request.steer is None or request.steer.delta == 0:
            return None  # the very computation of an unsteered row
        try:
            return self.backend.steering(request.prompt, request.steer)
        except (CasesError, SettingsError) as error:
            raise RequestError(str(error)) from None

    def _generated(
        self, batch: Sequence[Row], meter: Meter, arrived: Arrived
    ) -> Sequence[Generated | RequestError]:
        backend = self.backend
        if isinstance(backend, AnswersRowByRow):
            return backend.receive(batch, meter.add, arrived)
        return backend.generate(batch, meter.add)

    def _run(
        self,
        requests: Sequence[Request],
        batch: Sequence[Row],
        meter: Meter,
        early: dict[int, Outcome],
    ) -> dict[int, Outcome] | str:
        """The batch's outcomes by request, or what a library said when memory ran out.

        Answers of rows that end before the batch does are kept at once, and put into ``early``.
        """
        start, before = time.perf_counter(), meter.generated
        failure = None  # words alone: the exception would hold the tensors

        def arrived(row: Row, answer: Generated) -> None:
            if row.index not in early:
                # Its share of the batch's time is known when that ends, and kept then.
                wall = time.perf_counter() - start
                so_far = Timings(wall / len(batch), len(batch), wall_s=wall)
                early[row.index] = completion_of(row, answer, so_far)
                self._keep(requests, {row.index: early[row.index]})
                meter.add(0, rows=1)

        try:
            answers = self._generated(batch, meter, arrived)
        except Exception as error:
            if not self.backend.is_out_of_memory(error):
                raise
            failure = str(error)
        if failure is not None:  # outside the except block: its traceback keeps the tensors alive
            meter.generated = before
            self.backend.release_memory()
            return failure
        wall = time.perf_counter() - start
        share = Timings(wall / len(batch), len(batch), wall_s=wall)
        return {
            row.index: answer
            if isinstance(answer, RequestError)
            else completion_of(row, answer, share)
            for row, answer in zip(batch, answers, strict=True)
        }


def _check_apart(prompt: int, room: int, limit: int) -> None:
    if max(prompt, room) > limit:
        raise PromptTooLongError(
            f"the prompt has {prompt} tokens and the answer may have {room}; the model's encoder "
            f"and decoder take {limit} each. Use smaller cases, fewer max_new_tokens, or set "
            "--llmprobe-context if the model takes more"
        )
