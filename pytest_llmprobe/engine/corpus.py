"""A corpus cut into windows, and what a model gives to each: perplexity, bits per byte.

The windows are those of lm-evaluation-harness's rolling log-likelihood (its
``get_rolling_token_windows`` with a context of one token): every token of a text is scored once,
the first after the token that begins a text, the last window with as much context as fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_llmprobe.engine.teacher_forcing import Forced, TeacherForcing
from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.models.loading import LoadedModel

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
    size = min(size, loaded.capabilities.context_length or size)
    first = first_token(loaded)
    found = []
    for number, text in enumerate(texts):
        ids: Any = loaded.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        found += [Window(number, forced) for forced in windows(list(ids), first, size)]
    if not found:
        raise CasesError("the corpus has no token")
    return found


def forcing_of(engine: Any) -> TeacherForcing | None:
    """What runs the model of an engine over given answers, the way that the engine runs it.

    None where the model is not in this process.
    """
    loaded = getattr(engine.backend, "loaded", None)
    return None if loaded is None else TeacherForcing(loaded, engine.backend.shares_prefixes)
