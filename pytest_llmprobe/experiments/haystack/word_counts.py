"""Lists of words of which some occur more often: which ones?

After RULER's common words (nouns, numbered) and frequent words (made-up words whose frequency falls
with their rank), arXiv 2404.06654, appendix B.
"""

from __future__ import annotations

import random
import re
from collections import Counter

from pytest_llmprobe.case import Prompt, prompt_text
from pytest_llmprobe.data.prose import NOUNS
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.haystack.items import Items

VOCABULARY = tuple(
    sorted({*NOUNS} - {"box", "chain", "key", "letter", "map", "needle", "table", "window"})
)
"""Nouns but for those with which an answer may be talked about."""

CODED = "bcdfghjklmnpqrstvwxz"
"""Letters of made-up words, so that none of them is a word."""

NOISE = "..."
"""What is most frequent in a coded text and no word."""

_NUMBERED = re.compile(r"\b\d+\. ([a-z]+)\b")
_LOOKS = f"[{CODED}]{{6}}"
_CODED = re.compile(rf"\b{_LOOKS}\b")
_ASKED = re.compile(r"^The (\d+) (?:most )?(common|frequent) words:", re.MULTILINE)

ENTRY = 9
"""Characters of a word, full stop and spaces, about: its number comes on top."""


def common_words(size: int, wanted: int, rng: random.Random) -> tuple[str, ...]:
    """Words of about ``size`` characters when numbered: ``wanted`` of them are common.

    A common word occurs 6 times for once that another one does, as RULER has it in short texts;
    where the vocabulary is used up, about 10 times for once, as in its long ones.

    Raises:
        CasesError: There is no room for common and other words.
    """
    entries = size // (ENTRY + len(str(size // ENTRY)))
    words = rng.sample(VOCABULARY, len(VOCABULARY))
    often, others = 6, entries - 6 * wanted
    if others > (most := len(words) - wanted):
        often = 10 * entries // (10 * wanted + most)
        others = entries - often * wanted
    if others < wanted:
        raise CasesError(f"{size} characters have no room for {wanted} common words and others")
    rest = words[wanted:]
    listed = words[:wanted] * often
    listed += [rest[number % len(rest)] for number in range(others)]
    rng.shuffle(listed)
    return tuple(listed)


def numbered(words: tuple[str, ...]) -> str:
    """Words as a prompt lists them: ``1. lantern 2. coin``."""
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, 1))


def frequent_words(size: int, wanted: int, alpha: float, rng: random.Random) -> tuple[str, ...]:
    """Coded words of about ``size`` characters; that of rank k occurs about k ** -alpha as often.

    Rank 1 is noise, ``...``; ranks 2 to ``wanted`` + 1 are what is asked for.

    Args:
        size: Characters.
        wanted: How many words are asked for.
        alpha: How fast the frequency falls, above 1.
        rng: Draws words and their order.

    Raises:
        CasesError: There is no room for so many ranks that differ.
    """
    ranks = max(wanted + 2, size // 40)
    weights = [rank**-alpha for rank in range(1, ranks + 1)]
    length = [len(NOISE) + 1, *[7] * (ranks - 1)]
    unit = size / sum(weight * each for weight, each in zip(weights, length, strict=True))
    counts = [int(unit * weight) for weight in weights]
    if counts[wanted] <= counts[wanted + 1]:
        raise CasesError(f"{size} characters have no room for {wanted} words of their own rank")
    words: dict[str, None] = {NOISE: None}
    while len(words) < ranks:
        words["".join(rng.choices(CODED, k=6))] = None
    listed = [word for word, count in zip(words, counts, strict=True) for _ in range(count)]
    rng.shuffle(listed)
    return tuple(listed)


def read_task(prompt: Prompt) -> Items:
    """The words that a prompt asks for last, and all others: the reference solver.

    Raises:
        CasesError: Nothing is asked, or as many words are as frequent as the last one.
    """
    text = prompt_text(prompt)
    found = list(_ASKED.finditer(text))
    if not found:
        raise CasesError("the prompt asks for no words")
    before = found[-2].end() if len(found) > 1 else 0  # an example's text is not counted
    wanted, pattern = int(found[-1][1]), _NUMBERED if found[-1][2] == "common" else _CODED
    counts = Counter(pattern.findall(text[before : found[-1].start()])).most_common()
    if len(counts) <= wanted or counts[wanted - 1][1] == counts[wanted][1]:
        raise CasesError(f"the text has no {wanted} words that are more frequent than all others")
    words = tuple(word for word, _ in counts)
    looks = f"(?i:{_LOOKS})" if pattern is _CODED else None
    return Items(words[:wanted], words, looks, "word")
