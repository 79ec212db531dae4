"""The decode loop: feed, score, choose, check the guesses, until every row has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from pytest_llmprobe.engine.drafts import TRIED, Guesser
from pytest_llmprobe.engine.endings import AnswerReader, Endings
from pytest_llmprobe.engine.memory import Segment, TreeMemory
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.engine.sampling import best_of, has_penalties, leads, sampled


@dataclass
class RowState:
    """One row while it is decoded.

    Args:
        reader: Has what was said so far, and knows what ended it.
        margin: Least change of the logits that would have chosen another token, over all tokens.
        broken: A score was no number.
        begun: Reading of the clock at the beginning of its batch.
        wall_s: Seconds from then until it was over.
    """

    row: Row
    guesser: Guesser
    reader: AnswerReader
    margin: float = float("inf")
    broken: bool = False
    begun: float = field(default_factory=time.perf_counter)
    wall_s: float | None = None

    @property
    def tokens(self) -> list[int]:
        """Said so far."""
        return self.reader.tokens

    @property
    def over(self) -> bool:
        """Whether nothing more is said."""
        return self.broken or self.reader.ended is not None


@torch.inference_mode()
def decode(
    memory: TreeMemory,
    rows: Sequence[Row],
    drafts: Sequence[Sequence[int]],
    endings: Endings,
    on_tokens: Callable[[int], None],
    look_up: bool = True,
    on_end: Callable[[RowState], None] = lambda _: None,
) -> list[RowState]:
    """Decode all rows of a batch to their ends; each may have a config of its own.

    A guessed token is kept only if it is the one that the model chooses there, so the tokens are
    those of decoding without guesses: ``drafts``, or with ``look_up`` what the prompt says.
    ``on_end`` is called with each row that ends while others go on.
    """
    states = [
        RowState(row, Guesser(row.prompt_ids, draft, look_up), endings.reader(row))
        for row, draft in zip(rows, drafts, strict=True)
    ]
    most, told = min(TRIED, memory.most_scored(1) - 1), set[int]()
    for segments, logits in memory.prefill([draft[:most] for draft in drafts]):
        on_tokens(_step(logits, segments, states))
        _tell(states, told, on_end)
    while active := _tell(states, told, on_end):
        memory.drop(active)
        most = memory.most_scored(len(active)) - 1
        behind = min(len(states[number].tokens) for number in active)
        segments = [_next_segment(number, states[number], most, behind) for number in active]
        on_tokens(_step(memory.feed(segments), segments, states))
    return states


def _tell(
    states: Sequence[RowState], told: set[int], on_end: Callable[[RowState], None]
) -> list[int]:
    """Numbers of the rows that go on; if there are any, those that have ended are told once."""
    active = [number for number, state in enumerate(states) if not state.over]
    for ended in set(range(len(states))).difference(active, told) if active else ():
        told.add(ended)
        on_end(states[ended])
    return active


def _next_segment(number: int, state: RowState, most: int, behind: int) -> Segment:
    """What a row is fed; it looks up guesses only if no row has said less.

    A guess costs a pass one token more, and a row that has ended before others saves hardly any.
    """
    room = state.reader.most_to_come - 1
    guesses = state.guesser.next(min(room, most), look_up=len(state.tokens) == behind)
    start = len(state.row.prompt_ids) + len(state.tokens) - 1
    return Segment(number, (state.tokens[-1], *guesses), start, 1 + len(guesses))


def _histories(segments: Sequence[Segment], states: Sequence[RowState]) -> list[list[int]]:
    """For each scored place the tokens before it, its guesses taken as said, if they matter."""
    found: list[list[int]] = []
    for segment in segments:
        state, guesses = states[segment.row], segment.guesses
        if not has_penalties(state.row.config):
            found += [[]] * segment.scored
            continue
        so_far = [*state.row.prompt_ids, *state.tokens]
        found += [[*so_far, *guesses[:place]] for place in range(segment.scored)]
    return found


def _step(logits: torch.Tensor, segments: Sequence[Segment], states: Sequence[RowState]) -> int:
    """Choose tokens for all segments at once and take over those that follow right guesses."""
    steps = [len(states[s.row].tokens) + 1 + i for s in segments for i in range(s.scored)]
    rows = [states[s.row].row for s in segments for _ in range(s.scored)]
    seeds, configs = [row.seed for row in rows], [row.config for row in rows]
    logits = logits.float()
    prompts = [row.prompt_ids for row in rows]
    scores = sampled(logits, configs, seeds, steps, _histories(segments, states), prompts)
    best = best_of(scores)
    leading = leads(logits, scores, best, configs, seeds, steps)
    found = torch.stack([best.token.double(), best.score.double(), leading.double()])
    token, top, lead = found.tolist()  # greedy: the only time that the host waits for the device
    chosen = [int(number) for number in token]
    said, at = 0, 0
    for segment in segments:
        state, guesses = states[segment.row], segment.guesses
        taken: list[int] = []
        for place in range(segment.scored):
            if not abs(top[at + place]) < float("inf"):
                state.broken = True
                break
            taken.append(chosen[at + place])
            state.reader.add(chosen[at + place])
            state.margin = min(state.margin, lead[at + place])
            right = place < len(guesses) and guesses[place] == chosen[at + place]
            if state.over or not right:
                break
        if state.over:
            state.wall_s = time.perf_counter() - state.begun
        else:
            state.guesser.said(taken, len(guesses))
        said += len(taken)
        at += segment.scored
    return said
