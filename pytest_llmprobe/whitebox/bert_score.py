"""BERTScore (arXiv 1904.09675): how close two texts are, by matching their tokens' embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer, GPT2Tokenizer, RobertaTokenizer
from transformers.utils import logging

from pytest_llmprobe.errors import ModelError, SettingsError

LAYER = 12
"""Of almanach/camembert-base: its last."""

MAX_CHARACTERS = 20_000
"""Of a text that are looked at: a model's answer may be anything."""

REMEMBERED = 256
"""Texts whose embeddings are kept: one reference is compared with many answers."""


@dataclass(frozen=True)
class BertScore:
    """How close a candidate is to a reference, 1 for the same text.

    Args:
        precision: P, mean over the candidate's tokens of the best cosine with a reference token.
        recall: R, mean over the reference's tokens of the best cosine with a candidate token.
        f1: 2 P R / (P + R).
    """

    precision: float
    recall: float
    f1: float


class BertScorer:
    """Compares texts by one layer of an encoder, without idf weights and without rescaling.

    As the bert-score package (0.3.13) does it: the special tokens at both ends may be matched but
    are not averaged over, and an empty text scores 0. Each text goes through the encoder alone,
    so a score does not depend on the others; the package's may, in that it takes a best cosine
    below 0 for 0 where a batch is padded.

    Args:
        model: A transformers encoder.
        tokenizer: Its own.
        layer: Which hidden states, 0 for the embeddings; the last ones if it has fewer.

    Raises:
        SettingsError: The layer is negative.
    """

    def __init__(self, model: Any, tokenizer: Any, layer: int = LAYER) -> None:
        if layer < 0:
            raise SettingsError(f"layer={layer}: give 0 for the embeddings, or a layer from 1 up")
        self._model, self._tokenizer = model.eval(), tokenizer
        self.layer = min(layer, int(model.config.num_hidden_layers))
        self._embedded = lru_cache(REMEMBERED)(self._embed)

    @classmethod
    def load(cls, folder: str | Path, layer: int = LAYER) -> BertScorer:
        """Load an encoder from a folder, onto the CPU in float32; nothing is downloaded.

        Raises:
            ModelError: It cannot be loaded.
        """
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            model = AutoModel.from_pretrained(
                str(folder), dtype=torch.float32, use_safetensors=True, local_files_only=True
            )
        except (OSError, ValueError, ImportError) as error:
            first = str(error).strip().partition("\n")[0]
            raise ModelError(f"{folder} cannot be loaded as an encoder: {first[:300]}") from None
        finally:
            if bars:
                logging.enable_progress_bar()
        return cls(model, tokenizer, layer)

    def __call__(self, candidate: str, reference: str) -> BertScore:
        """Compare a candidate with a reference."""
        given, given_weights = self._embedded(candidate[:MAX_CHARACTERS])
        wanted, wanted_weights = self._embedded(reference[:MAX_CHARACTERS])
        if not (given_weights.any() and wanted_weights.any()):
            return BertScore(0.0, 0.0, 0.0)
        cosines = given @ wanted.T
        precision = _mean(cosines.amax(1), given_weights)
        recall = _mean(cosines.amax(0), wanted_weights)
        total = precision + recall
        return BertScore(precision, recall, 2 * precision * recall / total if total else 0.0)

    @torch.inference_mode()
    def _embed(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors of a text's tokens (T, hidden), and which of them are averaged over (T,)."""
        ids = torch.tensor([self._ids(text.strip())], device=self._model.device)
        states = self._model(ids, output_hidden_states=True).hidden_states[self.layer][0]
        ends = (self._tokenizer.cls_token_id, self._tokenizer.sep_token_id)
        weights = torch.tensor([float(token not in ends) for token in ids[0].tolist()])
        return torch.nn.functional.normalize(states.float().cpu(), dim=-1), weights

    def _ids(self, text: str) -> list[int]:
        if text and isinstance(self._tokenizer, GPT2Tokenizer | RobertaTokenizer):
            text = f" {text}"  # their first word would be another token than within a sentence
        positions = int(self._model.config.max_position_embeddings)
        most = int(self._tokenizer.model_max_length)
        if most > positions:  # the tokenizer names no limit; RoBERTa's kind begins to count at 2
            most = positions - 2
        return list(self._tokenizer(text, truncation=True, max_length=most)["input_ids"])


def _mean(values: torch.Tensor, weights: torch.Tensor) -> float:
    return float((values * weights).sum() / weights.sum())
