"""What one round of generation costs: time to the first token, tokens in a second, memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import psutil
import torch

from pytest_llmprobe.case import Prompt
from pytest_llmprobe.engine.engine import Engine
from pytest_llmprobe.engine.meter import Progress
from pytest_llmprobe.engine.transformers_backend import TransformersBackend
from pytest_llmprobe.generation import Completion, GenerateConfig, Request

MEBIBYTE = 2**20
LOOK_S = 0.005


@dataclass(frozen=True)
class Round:
    """One batch.

    Args:
        seconds: From the requests to the last token.
        first_token_s: To the first token of every row; None if a server does not tell.
        prompt_tokens: Of all rows; None if a server does not count them.
        generated_tokens: Of all rows.
        rows: Answers.
        memory: Most bytes that this process, or its GPU, held; None of a model behind a server.
    """

    seconds: float
    first_token_s: float | None
    prompt_tokens: int | None
    generated_tokens: int
    rows: int
    memory: int | None

    @property
    def prefill_tokens_per_s(self) -> float | None:
        """Tokens of prompts that are read in a second."""
        if self.first_token_s is None or self.prompt_tokens is None:
            return None
        return self.prompt_tokens / self.first_token_s

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Tokens that are generated in a second, all rows together, after the first ones."""
        later = self.generated_tokens - self.rows
        if self.first_token_s is None or later < 1:
            return None
        return later / (self.seconds - self.first_token_s)


def timed(engine: Engine, prompts: Sequence[Prompt], new_tokens: int) -> Round:
    """Generate for all prompts in one batch, greedily; nothing is kept, and nothing looked up.

    Of a model in this process every answer has all its tokens, whatever the model says, and each
    is computed: none is guessed.

    Raises:
        RequestError: A prompt cannot be answered.
    """
    backend = engine.backend
    local = isinstance(backend, TransformersBackend)
    if isinstance(backend, TransformersBackend):
        engine = Engine(backend.unending(), batch_size=len(prompts))
    store, engine.store = engine.store, None
    seen: list[Progress] = []
    requests = [Request(p, GenerateConfig(max_new_tokens=new_tokens)) for p in prompts]
    try:
        with _peak(backend) as memory:
            outcomes = engine.attempt(requests, seen.append)
    finally:
        engine.store = store
    answers = []
    for outcome in outcomes:
        if not isinstance(outcome, Completion):
            raise outcome
        answers.append(outcome)
    return _round(answers, seen, memory if local else [])


def _round(answers: Sequence[Completion], seen: Sequence[Progress], memory: Sequence[int]) -> Round:
    rows, seconds = len(answers), seen[-1].seconds
    told = [a.timings.first_token_s for a in answers if a.timings.first_token_s is not None]
    generated = [a.usage.generated_tokens or 0 for a in answers]
    if max(generated) <= 1:  # whoever says one token says it first
        first: float | None = seconds
    elif memory:
        first = next(p.seconds for p in seen if p.generated_tokens >= rows)
    else:
        first = median(told) if len(told) == rows else None
    counted = [a.usage.prompt_tokens for a in answers]
    known = [count for count in counted if count is not None]
    prompt_tokens = sum(known) if len(known) == rows else None
    return Round(seconds, first, prompt_tokens, sum(generated), rows, max(memory, default=None))


@contextmanager
def _peak(backend: object) -> Iterator[list[int]]:
    """What is held while the block runs: a list that is filled by its end."""
    model = getattr(backend, "model", None)
    held: list[int] = []
    if model is not None and model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
        yield held
        held.append(torch.cuda.max_memory_allocated(model.device))
        return
    process, over = psutil.Process(), threading.Event()

    def look() -> None:
        while True:
            held.append(process.memory_info().rss)
            if over.wait(LOOK_S):
                return

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield held
    finally:
        over.set()
        watcher.join()
