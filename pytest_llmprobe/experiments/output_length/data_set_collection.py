"""Makes a data set of hidden states and remaining tokens: ask, check, read the states, write.

Model and engine are passed in, so that this runs without torch. One chunk of requests is at work
at a time and one batch of states in memory, whatever the number of requests.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_llmprobe.case import RawPrompt
from pytest_llmprobe.errors import CasesError, RequestError, SettingsError
from pytest_llmprobe.experiments.output_length.data_set import LengthData, load_length_data
from pytest_llmprobe.experiments.output_length.data_set_files import TOKEN, ChunkWriter, Part
from pytest_llmprobe.experiments.output_length.lists import listed
from pytest_llmprobe.experiments.output_length.requests import HeldOut, LengthRequest, held_out
from pytest_llmprobe.experiments.output_length.words import counted, repeated
from pytest_llmprobe.generation import Completion, GenerateConfig, Request

Keep: TypeAlias = Literal["exact", "words", "ended"]
"""Which answers are data: right word and count, right word and any count, all that ended."""

Status: TypeAlias = Literal["right", "wrong count", "wrong words", "truncated", "failed"]
KEPT: dict[Keep, frozenset[Status]] = {
    "exact": frozenset({"right"}),
    "words": frozenset({"right", "wrong count"}),
    "ended": frozenset({"right", "wrong count", "wrong words"}),
}

CHUNK = 256
"""Requests between two safe points."""

MAX_ANSWER = 500
"""Characters of a wrong answer that are kept."""

HALF_MOST = float(np.finfo(np.float16).max)


class Reader(Protocol):
    """What the collection needs of a model; `whitebox.hidden_states.HiddenStateReader` is one."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose states it reads, counted from the embeddings."""

    @property
    def hidden_size(self) -> int:
        """Numbers of one layer's state."""

    @property
    def info(self) -> Mapping[str, Any]:
        """Which model it is."""

    def prompt(self, text: str) -> RawPrompt:
        """A user's message as the model reads it."""

    def states(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
    ) -> Iterable[npt.NDArray[np.float32]]:
        """For each answer of T tokens the states that they were chosen from [T, D]."""

    def token_text(self, token_id: int) -> str:
        """The text of one token."""


Generate: TypeAlias = Callable[[Sequence[Request]], Sequence[Completion | RequestError]]
"""Answers in the order of the requests; ``Engine.attempt`` is one."""


def collect(
    folder: Path,
    requests: Sequence[LengthRequest],
    reader: Reader,
    generate: Generate,
    *,
    max_new_tokens: int | None = None,
    keep: Keep = "exact",
    hold_out: HeldOut = "sample",
    share: float = 0.2,
    seed: int = 0,
    dtype: Literal["float32", "float16"] = "float32",
    chunk: int = CHUNK,
    on_progress: Callable[[int, int], None] | None = None,
) -> LengthData:
    """Make a data set, or what is missing of one that was begun.

    Args:
        folder: Where it is written.
        requests: What to ask, each answered greedily.
        reader: The model's prompts and states.
        generate: The engine.
        max_new_tokens: Answers that need more are truncated; by default six for each word asked for
            and 16 more, 20 and 40 for a list's, or 256 if nobody knows how long one should be.
        keep: Which answers are data.
        hold_out: What tells the part ``val`` from ``train``, see `requests.held_out`.
        share: How much of it is ``val``.
        seed: Of the split.
        dtype: Of the states on disk.
        chunk: Requests between two safe points.
        on_progress: Called with the requests that are done and all.

    Raises:
        CasesError: No answer can be used, or the folder holds another data set.
        SettingsError: The requests cannot be split, or a state does not fit into float16.
    """
    room = max_new_tokens or max(map(_room, requests))
    parts: list[Part] = [
        "val" if is_val else "train" for is_val in held_out(requests, hold_out, share, seed)
    ]
    parameters = {
        "requests": len(requests),
        "requests_hash": _hash([asdict(request) for request in requests]),
        "model": dict(reader.info),
        "layers": list(reader.layers),
        "max_new_tokens": room,
        "keep": keep,
        "hold_out": hold_out,
        "share": share,
        "seed": seed,
        "dtype": dtype,
        "chunk": chunk,
    }
    writer = ChunkWriter(folder, parameters, len(reader.layers) * reader.hidden_size, dtype)
    if writer.complete:
        return load_length_data(folder)
    config = GenerateConfig(max_new_tokens=room)
    collector = _Collector(reader, generate, config, keep, dtype == "float16", writer)
    try:
        for start in range(writer.chunks * chunk, len(requests), chunk):
            end = min(start + chunk, len(requests))
            collector.add(start, requests[start:end], parts[start:end])
            if on_progress is not None:
                on_progress(end, len(requests))
        kept = [sample for sample in writer.samples if sample["status"] in KEPT[keep]]
        if not kept:
            found = ", ".join(f"{n} {status}" for status, n in totals(writer.samples).items())
            raise CasesError(f"no answer can be used ({found}): give another model, or keep more")
        writer.finish(
            {
                "layers": list(reader.layers),
                "hidden_size": reader.hidden_size,
                "first_prompt": reader.prompt(requests[0].prompt).text,
                "statistics": statistics(writer.samples, writer.rows),
                "samples": kept,
                "rejected_samples": [s for s in writer.samples if s["status"] not in KEPT[keep]],
            }
        )
    finally:
        writer.close()
    return load_length_data(folder)


class _Collector:
    """Turns requests into rows and records of samples."""

    def __init__(
        self,
        reader: Reader,
        generate: Generate,
        config: GenerateConfig,
        keep: Keep,
        is_half: bool,
        writer: ChunkWriter,
    ) -> None:
        self._reader, self._generate, self._config = reader, generate, config
        self._kept, self._writer, self._is_half = KEPT[keep], writer, is_half
        self._text = cache(reader.token_text)

    def add(self, start: int, requests: Sequence[LengthRequest], parts: Sequence[Part]) -> None:
        """One chunk: generate, check, read the states batch by batch, write."""
        prompts = [self._reader.prompt(request.prompt) for request in requests]
        outcomes = self._generate(
            [
                Request(prompt, self._config, draft=_draft(request))
                for prompt, request in zip(prompts, requests, strict=True)
            ]
        )
        answered = zip(parts, requests, outcomes, strict=True)
        samples = [
            {"sample_id": number, "part": part, **_judged(request, outcome)}
            for number, (part, request, outcome) in enumerate(answered, start)
        ]
        kept = [i for i, sample in enumerate(samples) if sample["status"] in self._kept]
        ids = [o.token_ids if isinstance(o, Completion) else () for o in outcomes]
        states = self._reader.states([prompts[i].ids for i in kept], [ids[i] for i in kept])
        for i, found in zip(kept, states, strict=True):
            self._write(parts[i], start + i, ids[i], found)
        self._writer.commit(samples)

    def _write(
        self, part: Part, sample_id: int, ids: Sequence[int], states: npt.NDArray[np.float32]
    ) -> None:
        if self._is_half and np.abs(states).max() > HALF_MOST:
            raise SettingsError(
                f"a hidden state of {np.abs(states).max():g} does not fit into float16 (at most "
                f"{HALF_MOST:g}): store float32"
            )
        tokens = [(token, self._text(token), sample_id, step) for step, token in enumerate(ids)]
        remaining = np.arange(len(ids))[::-1]
        self._writer.write(part, states, remaining, np.array(tokens, TOKEN))


def _room(request: LengthRequest) -> int:
    return 20 * (request.count or 0) + 40 if request.is_list else 6 * (request.count or 40) + 16


def _draft(request: LengthRequest) -> str | None:
    if not (request.word and request.count) or request.is_list:
        return None
    return repeated(request.word, request.count)


def _judged(request: LengthRequest, outcome: Completion | RequestError) -> dict[str, Any]:
    """What is known of a sample; ``answer`` is there if it is not right, ``found`` is its count."""
    record: dict[str, Any] = asdict(request) | {"tokens": 0, "found": None}
    if isinstance(outcome, RequestError):
        return record | {"status": "failed", "answer": str(outcome)[:MAX_ANSWER]}
    found = None if request.word is None else counted(outcome.text, request.word)
    if request.is_list:
        found = listed(outcome.text)
    status: Status = "right"
    if outcome.finish_reason != "stop":  # the end was not generated, so its length is not known
        status, found = "truncated", None
    elif request.word is not None and found is None:
        status = "wrong words"
    elif found != request.count:
        status = "wrong count"
    record |= {"status": status, "tokens": len(outcome.token_ids), "found": found}
    return record if status == "right" else record | {"answer": outcome.text[:MAX_ANSWER]}


def totals(samples: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many samples there are of each status."""
    return dict(sorted(Counter(sample["status"] for sample in samples).items()))


def statistics(samples: Sequence[Mapping[str, Any]], rows: Mapping[Part, int]) -> dict[str, Any]:
    """How many samples there are of each status, how far counts are off, how many rows."""
    off = [s["found"] - s["count"] for s in samples if s["found"] is not None]
    return {
        "samples": totals(samples),
        "rows": dict(rows),
        "count_deviation": {
            "n": len(off),
            "mean": fmean(off),
            "mean_absolute": fmean(map(abs, off)),
            "histogram": {str(value): n for value, n in sorted(Counter(off).items())},
        }
        if off
        else None,
    }


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
