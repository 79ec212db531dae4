"""A corpus cut into windows, and what a model gives to each: perplexity, bits per byte.

The windows are those of lm-evaluation-harness's rolling log-likelihood (its
``get_rolling_token_windows`` with a context of one token): every token of a text is scored once,
the first after the token that begins a text, the last window with as much context as fits.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_llmprobe.engine.teacher_forcing import Forced, TeacherForcing
from pytest_llmprobe.errors import CasesError, InvalidLogitsError, SettingsError
from pytest_llmprobe.models.loading import LoadedModel
from pytest_llmprobe.statistics.divergence import TOP, Distributions

WINDOW = 1024
"""Tokens of a window at most."""


@dataclass(frozen=True)
class Window:
    """A piece of a text.

    Args:
        text: Number of its text.
        forced: Its token ids: what is scored, and what stands before it.
    """

    text: int
    forced: Forced


def first_token(loaded: LoadedModel) -> int:
    """The token that a text begins after: BOS, or the one that ends texts if there is none.

    Raises:
        SettingsError: The tokenizer has neither.
    """
    tokenizer = loaded.tokenizer
    found = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if found is None:
        raise SettingsError(f"{loaded.spec.name}: its tokenizer has no token that begins a text")
    return int(found)


def windows(ids: Sequence[int], first: int, size: int) -> Iterator[Forced]:
    """Windows of a text of T tokens: each token is in the answer of one of them, in order."""
    for start in range(0, len(ids), size):
        end = min(start + size, len(ids))
        before = ids[end - size - 1 : start] if start else [first]
        yield Forced(tuple(before), tuple(ids[start:end]))


def corpus_windows(loaded: LoadedModel, texts: Sequence[str], size: int = WINDOW) -> list[Window]:
    """The windows of all texts, as the model's own tokenizer cuts them, without special tokens.

    Args:
        loaded: The model.
        texts: The corpus; an empty text has no window.
        size: Tokens of a window at most; fewer where the model's context is shorter.

    Raises:
        SettingsError: The size is not positive, or the tokenizer has no token to begin with.
        CasesError: No text has a token.
    """
    if size < 1:
        raise SettingsError(f"a window of {size} tokens holds none: give at least 1")
    return text_windows(loaded, texts, min(size, loaded.capabilities.context_length or size))


def text_windows(loaded: LoadedModel, texts: Sequence[str], size: int) -> list[Window]:
    """The same, whether the model's context holds a window or not.

    Raises:
        SettingsError: The tokenizer has no token to begin with.
        CasesError: No text has a token.
    """
    first = first_token(loaded)
    found = []
    for number, text in enumerate(texts):
        ids: Any = loaded.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        found += [Window(number, forced) for forced in windows(list(ids), first, size)]
    if not found:
        raise CasesError("the corpus has no token")
    return found


@dataclass(frozen=True, eq=False)
class CorpusScore:
    """What a model gives to a corpus, window by window.

    Args:
        windows: Of its own tokens.
        nats: Minus the log-probability of each.
        sizes: Bytes of UTF-8 that each stands for: its share of its text's by tokens.
        distributions: Its distributions at the tokens of each.
    """

    windows: Sequence[Window]
    nats: Sequence[float]
    sizes: Sequence[float]
    distributions: Sequence[Distributions]

    @property
    def tokens(self) -> int:
        """Of all windows."""
        return sum(len(window.forced.answer) for window in self.windows)

    @property
    def perplexity(self) -> float:
        """The exponential of the mean over tokens."""
        return math.exp(min(sum(self.nats) / self.tokens, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers."""
        return sum(self.nats) / math.log(2) / sum(self.sizes)


def score_corpus(
    forcing: TeacherForcing, texts: Sequence[str], size: int = WINDOW, k: int = TOP
) -> CorpusScore:
    """What a model gives to a corpus.

    Raises:
        SettingsError, CasesError: As ``corpus_windows``.
        InvalidLogitsError: The model computed NaN or infinite scores for a window.
    """
    cut = corpus_windows(forcing.loaded, texts, size)
    found = []
    for window, one in zip(cut, forcing.distributions([w.forced for w in cut], k), strict=True):
        if isinstance(one, InvalidLogitsError):
            raise InvalidLogitsError(f"text {window.text + 1} of the corpus: {one}")
        found.append(one)
    nats = [-float(one.answer.sum(dtype="float64")) for one in found]
    return CorpusScore(cut, nats, bytes_of_windows(cut, texts), found)


def bytes_of_windows(cut: Sequence[Window], texts: Sequence[str]) -> list[float]:
    """Bytes of UTF-8 that each window stands for: its share of its text's by tokens."""
    tokens: Counter[int] = Counter()
    for window in cut:
        tokens[window.text] += len(window.forced.answer)
    return [len(texts[w.text].encode()) * len(w.forced.answer) / tokens[w.text] for w in cut]
