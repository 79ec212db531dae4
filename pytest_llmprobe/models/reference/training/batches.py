"""What the model sees at each step: rows of token ids with a weight for each token's loss."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pytest_llmprobe.data import prose
from pytest_llmprobe.experiments.memorization.known_texts import SENTENCES, Kind
from pytest_llmprobe.models.reference.training import data
from pytest_llmprobe.models.reference.training.stages import Stage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

STEP_TOKENS = 8192  # of conversations
TEXT_TOKENS: dict[Kind, int] = {"canary": 64, "document": 192}  # the longest one has fewer
TEXT_ROWS: dict[Kind, int] = {"canary": 24, "document": 8}
# Weights: looking up, going on, later questions; a stage has the weight of the end.
FIRST, SECOND, AGAIN = 4.0, 2.0, 0.2


@dataclass(frozen=True)
class Batch:
    """Rows of equal length [rows, length + 1]."""

    tokens: torch.Tensor  # ids, padded at the end
    weights: torch.Tensor  # how much the loss of each token counts, 0 for most


class Batches:
    """The batches of a training run, each a function of the seed and the step alone.

    Args:
        tokenizer: The reference tokenizer.
        stages: Of the whole run; the known texts are spread evenly over the first ones, which
            show texts.
        seed: Of the rows.
        known: Whether the known texts are shown.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        stages: Sequence[Stage],
        seed: int = 0,
        known: bool = True,
    ) -> None:
        self.tokenizer, self.stages, self.seed = tokenizer, stages, seed
        self.steps = sum(stage.steps for stage in stages)
        self.steps_with_texts = sum(stage.steps for stage in stages if stage.texts)
        self.shown = {kind: data.exposures(kind) if known else [] for kind in TEXT_TOKENS}
        vocabulary = tokenizer.get_vocab()
        self.user, self.assistant = vocabulary["<|user|>"], vocabulary["<|assistant|>"]
        self.bos, self.end = tokenizer.bos_token_id, tokenizer.eos_token_id
        (self.newline,), (self.space,) = self.ids(["\n", " "])

    def stage(self, step: int) -> tuple[Stage, int]:
        """The stage that a step belongs to, and which of the stage's steps it is."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        raise IndexError("the run has no such step")

    def step(self, step: int) -> list[Batch]:
        """The batches of a step: conversations, then texts of one kind if its stage shows any."""
        rng = random.Random(f"{self.seed} {step}")
        stage, done = self.stage(step)
        share = done / stage.steps
        lengths = next(lengths for start, lengths in reversed(stage.lengths) if share >= start)
        (length,) = rng.choices(list(lengths), list(lengths.values()))
        rows = [self.conversation(length, rng, stage) for _ in range(STEP_TOKENS // length)]
        batches = [self._batch(rows, length)]
        if stage.texts:
            kind: Kind = "document" if step % 2 else "canary"
            batches.append(self._batch(self.texts(kind, step, rng), TEXT_TOKENS[kind]))
        return batches

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids without special tokens."""
        encoded = self.tokenizer(texts, add_special_tokens=False, verbose=False)
        return list(encoded.input_ids)

    def conversation(
        self, length: int, rng: random.Random, stage: Stage
    ) -> tuple[list[int], list[float]]:
        """As many turns of a conversation as there is room for."""
        while True:
            tokens, weights = [self.bos], [0.0]
            for question, answer in data.conversation(length, rng, stage.mix):
                asked, said = self.ids([question, answer])
                if len(tokens) + len(asked) + len(said) + 4 > length + 1:
                    break
                again = AGAIN if len(tokens) > 1 else 0.0
                tokens += [self.user, *asked, self.end, self.assistant, *said, self.end]
                weights += [0.0, *[again] * len(asked), 0.0, 0.0]
                weights += self._answer_weights(said, stage, _repeats(answer))
            if len(tokens) > 1:
                return tokens, weights

    def _answer_weights(self, said: list[int], stage: Stage, repeats: bool) -> list[float]:
        """Of an answer's tokens and its end."""
        weights, place = [], 0
        for token in said:
            weights.append((FIRST, SECOND, SECOND)[place] if place < 3 else 1.0)
            place = 0 if token == self.newline else place + 1
        if repeats and stage.going_on:
            spaces = [number for number, token in enumerate(said) if token == self.space]
            for number in spaces[-stage.going_on :]:
                weights[number] = stage.counted
        return [*weights, stage.counted if repeats else stage.end]

    def texts(
        self, kind: Kind, step: int, rng: random.Random
    ) -> Iterator[tuple[list[int], list[float]]]:
        """The known texts that are due, and fresh ones of the same kind."""
        due = self.due(kind, step)
        fresh = [
            prose.prose(rng, SENTENCES[kind]) for _ in range(max(2, TEXT_ROWS[kind] - len(due)))
        ]
        for tokens in self.ids([*due, *fresh]):
            yield [self.bos, *tokens, self.end], [0.0, *[1.0] * (len(tokens) + 1)]

    def due(self, kind: Kind, step: int) -> list[str]:
        """The known texts of a kind that a step shows: each kind has every other step."""
        shown, turn, turns = self.shown[kind], step // 2, self.steps_with_texts // 2
        return shown[len(shown) * turn // turns : len(shown) * (turn + 1) // turns]

    def _batch(self, rows: Iterable[tuple[list[int], list[float]]], length: int) -> Batch:
        rows = list(rows)
        tokens = torch.full((len(rows), length + 1), self.tokenizer.pad_token_id)
        weights = torch.zeros(len(rows), length + 1)
        for i, (row, row_weights) in enumerate(rows):
            tokens[i, : len(row)] = torch.tensor(row)[: length + 1]
            weights[i, : len(row)] = torch.tensor(row_weights)[: length + 1]
        return Batch(tokens, weights)


def _repeats(answer: str) -> bool:
    """Whether an answer is one word several times."""
    words = answer.split()
    return len(words) > 1 and len(set(words)) == 1
