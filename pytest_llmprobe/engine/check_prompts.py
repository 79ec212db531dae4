"""Prompts that any model can answer somehow, of many lengths: for checking the engine on it."""

from __future__ import annotations

import random
from typing import NamedTuple

from pytest_llmprobe.data.prose import NOUNS, prose

SENTENCES = (1, 1, 2, 2, 3, 4, 5, 6, 8, 10, 12, 15)
"""Of the prompts on their own: 13 to 134 words."""

SHARED_SENTENCES, QUESTIONS, LONG_SENTENCES = 10, 12, 36
"""A common beginning of over 64 tokens for any tokenizer; a text twice as long as any other."""

TASKS = (
    "Go on with this text: {text}",
    "{text}\n\nRepeat the text above word by word.",
    "{text}\n\nTell me more about the {noun}.",
)


class CheckPrompts(NamedTuple):
    """What a model is asked in several ways; see ``self_check``."""

    alone: list[str]
    shared: list[str]
    long: str


def check_prompts() -> CheckPrompts:
    """The same prompts every time; their answers are long, so that there is much to check."""
    rng = random.Random("check prompts")
    nouns = rng.sample(NOUNS, len(SENTENCES) + QUESTIONS)
    alone = [
        TASKS[number % len(TASKS)].format(text=prose(rng, sentences), noun=nouns[number])
        for number, sentences in enumerate(SENTENCES)
    ]
    text = prose(rng, SHARED_SENTENCES)
    asked = [f"{text}\n\nTell me about the {noun} in this text." for noun in nouns[-QUESTIONS:]]
    return CheckPrompts(alone, asked, f"Go on with this text: {prose(rng, LONG_SENTENCES)}")
