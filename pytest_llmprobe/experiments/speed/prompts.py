"""Prompts of about so many tokens that have nothing in common."""

from __future__ import annotations

from pytest_llmprobe.data.prose import prose
from pytest_llmprobe.suite import Suite

WORDS_OF_A_SENTENCE = 8


def text_of(suite: Suite, size: int, *key: str | int) -> str:
    """A prompt of about ``size`` tokens, chat template included; another one for each key."""
    words = prose(suite.random("speed", size, *key), 1 + size // 4).split()
    frame, whole = suite.tokens(words[0]) - 1, suite.tokens(" ".join(words))
    wanted = round(len(words) * (size - frame) / max(1, whole - frame))
    return " ".join(words[: max(1, wanted)])
