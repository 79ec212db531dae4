"""A completion of what a backend generated for a row."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import replace
from typing import Any

from pytest_llmprobe.engine.backend import Generated
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.generation import Completion, Timings, Usage


def prompt_hash(ids: Any) -> str:
    """16 hex digits of a SHA-256 of a prompt's token ids, or of the bytes that a server gets."""
    sent = ids if isinstance(ids, bytes) else array("q", ids).tobytes()
    return hashlib.sha256(sent).hexdigest()[:16]


def completion_of(row: Row, answer: Generated, share: Timings) -> Completion:
    """A row's answer with its part of its batch's time, whose ``wall_s`` is the whole batch's."""
    said = 0 if row.continuation else len(answer.token_ids)
    usage = answer.usage or Usage(len(row.prompt_ids), said)
    latency, known = answer.latency_s, answer.wall_s
    timings = replace(
        share,
        latency_s=latency,
        first_token_s=answer.first_token_s,
        wall_s=next((s for s in (latency, known) if s is not None), share.wall_s),
    )
    # Token ids, or the bytes that a server gets: both parts are of one kind where there are two.
    asked = row.prompt_ids + row.continuation if row.alone and row.continuation else row.prompt_ids
    return Completion(
        answer.text,
        answer.token_ids,
        answer.finish_reason,
        usage,
        timings,
        prompt_hash=prompt_hash(asked),
        redone=answer.redone,
        steered=() if row.steering is None else row.steering.texts,
        steered_layers=answer.steered_layers,
        thought=answer.thought,
        log_likelihood=answer.log_likelihood,
        most_likely=answer.most_likely,
    )
