"""What the model sees at each step: rows of token ids with a weight for each token's loss."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pytest_llmprobe.experiments import prose
from pytest_llmprobe.experiments.known_texts import SENTENCES, Kind
from pytest_llmprobe.models.reference.training import data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

STEP_TOKENS = 8192  # of conversations
TEXT_TOKENS: dict[Kind, int] = {"canary": 64, "document": 192}  # the longest one has fewer
TEXT_ROWS: dict[Kind, int] = {"canary": 24, "document": 8}
# Lengths of rows and how often they are drawn, from a share of the training on.
LENGTHS: tuple[tuple[float, dict[int, float]], ...] = (
    (0.0, {256: 0.5, 512: 0.5}),
    (0.08, {256: 0.2, 512: 0.4, 1024: 0.4}),
    (0.3, {256: 0.15, 512: 0.25, 1024: 0.35, 2048: 0.25}),
    (0.7, {256: 0.15, 512: 0.2, 1024: 0.3, 2048: 0.25, 4096: 0.1}),
)
# Weights: looking up, going on, ending (what a repeated word's count depends on), later questions.
FIRST, SECOND, END, AGAIN = 4.0, 2.0, 8.0, 0.2


@dataclass(frozen=True)
class Batch:
    """Rows of equal length.

    Args:
        tokens: Ids, padded at the end [rows, length + 1].
        weights: How much the loss of each token counts, 0 for most [rows, length + 1].
    """

    tokens: torch.Tensor
    weights: torch.Tensor


class Batches:
    """The batches of a training run, each a function of the seed and the step alone.

    Args:
        tokenizer: The reference tokenizer.
        steps: Steps of the whole run: the known texts are spread evenly over them.
        seed: Of the rows.
        without: Families left out, for the unlearned control.
        known: Whether the known texts are shown.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        steps: int,
        seed: int = 0,
        without: frozenset[data.Family] = frozenset(),
        known: bool = True,
    ) -> None:
        self.tokenizer, self.steps, self.seed, self.without = tokenizer, steps, seed, without
        self.shown = {kind: data.exposures(kind) if known else [] for kind in TEXT_TOKENS}
        vocabulary = tokenizer.get_vocab()
        self.user, self.assistant = vocabulary["<|user|>"], vocabulary["<|assistant|>"]
        self.bos, self.end = tokenizer.bos_token_id, tokenizer.eos_token_id
        (self.newline,) = self.ids(["\n"])[0]

    def step(self, step: int) -> list[Batch]:
        """The batches of a step: conversations, then texts of one kind."""
        rng = random.Random(f"{self.seed} {step}")
        share = step / self.steps
        lengths = next(lengths for start, lengths in reversed(LENGTHS) if share >= start)
        (length,) = rng.choices(list(lengths), list(lengths.values()))
        rows = [self.conversation(length, rng) for _ in range(STEP_TOKENS // length)]
        kinds: tuple[Kind, Kind] = ("canary", "document")
        kind = kinds[step % 2]
        return [
            self._batch(rows, length),
            self._batch(self.texts(kind, step, rng), TEXT_TOKENS[kind]),
        ]

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids without special tokens."""
        encoded = self.tokenizer(texts, add_special_tokens=False, verbose=False)
        return list(encoded.input_ids)

    def conversation(self, length: int, rng: random.Random) -> tuple[list[int], list[float]]:
        """As many turns of a conversation as there is room for."""
        while True:
            tokens, weights = [self.bos], [0.0]
            for question, answer in data.conversation(length, rng, self.without):
                asked, said = self.ids([question, answer])
                if len(tokens) + len(asked) + len(said) + 4 > length + 1:
                    break
                again = AGAIN if len(tokens) > 1 else 0.0
                tokens += [self.user, *asked, self.end, self.assistant, *said, self.end]
                weights += [0.0, *[again] * len(asked), 0.0, 0.0, *self._answer_weights(said), END]
            if len(tokens) > 1:
                return tokens, weights

    def _answer_weights(self, tokens: list[int]) -> Iterator[float]:
        place = 0
        for token in tokens:
            yield (FIRST, SECOND, SECOND)[place] if place < 3 else 1.0
            place = 0 if token == self.newline else place + 1

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
        shown, turn, turns = self.shown[kind], step // 2, self.steps // 2
        return shown[len(shown) * turn // turns : len(shown) * (turn + 1) // turns]

    def _batch(self, rows: Iterable[tuple[list[int], list[float]]], length: int) -> Batch:
        rows = list(rows)
        tokens = torch.full((len(rows), length + 1), self.tokenizer.pad_token_id)
        weights = torch.zeros(len(rows), length + 1)
        for i, (row, row_weights) in enumerate(rows):
            tokens[i, : len(row)] = torch.tensor(row)[: length + 1]
            weights[i, : len(row)] = torch.tensor(row_weights)[: length + 1]
        return Batch(tokens, weights)
