"""Which language an answer is in, by a detector that needs no network and always says the same."""

from __future__ import annotations

from copy import copy
from functools import cache
from typing import Any

THRESHOLD = 0.9
"""Probability from which a language counts as told: below it an answer is too short or mixed."""

MAX_CHARACTERS = 20_000


def language(text: str, threshold: float = THRESHOLD) -> str | None:
    """The ISO 639-1 code of a text's language, or None if it cannot be told.

    Args:
        text: Any text; only its first 20,000 characters are looked at.
        threshold: The least probability.
    """
    code, probability = _detector().classify(text[:MAX_CHARACTERS])
    return str(code) if text.strip() and probability >= threshold else None


def guess(text: str) -> str:
    """The likeliest code, however unlikely."""
    return str(_detector().classify(text[:MAX_CHARACTERS])[0])


def is_rather_english(text: str) -> bool:
    """Whether a text is English if it is English or French."""
    return str(_of_the_two().classify(text[:MAX_CHARACTERS])[0]) == "en"


@cache
def _of_the_two() -> Any:
    detector = copy(_detector())
    detector.set_languages(["en", "fr"])  # of the copy alone
    return detector


@cache
def _detector() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # reads its model's file

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
