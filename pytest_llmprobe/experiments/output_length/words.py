"""Requests for a word repeated a number of times, whose answers have a known length.

Follows output-length-prediction: whoever obeys such a request knows at its first token how many
tokens the answer will have, so hidden states can be probed for the number that remains.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import islice, pairwise

from pytest_llmprobe.experiments.answers import plain

# Common and short; none is another one's plural, so that answers do not run into each other.
WORDS = (
    *("apple", "arm", "bank", "bird", "blue", "boat", "book", "bread", "bridge", "car"),
    *("cat", "chair", "child", "city", "clock", "cloud", "cold", "day", "dog", "door"),
    *("earth", "eye", "farm", "fire", "fish", "flower", "game", "garden", "gold", "green"),
    *("hand", "happy", "heart", "hill", "horse", "house", "king", "lake", "light", "milk"),
    *("money", "moon", "music", "night", "paper", "queen", "rain", "red", "river", "road"),
    *("school", "ship", "snow", "star", "stone", "summer", "sun", "table", "tree", "water"),
)

PHRASINGS = (
    'Repeat the word "{word}" {count} times.',
    'Write the word "{word}" {count} times.',
    'Say the word "{word}" {count} times.',
    'Print the word "{word}" {count} times.',
    'Type the word "{word}" {count} times.',
    'Output the word "{word}" {count} times.',
    'Please repeat the word "{word}" {count} times.',
    'Please write the word "{word}" {count} times.',
    'Please repeat "{word}" {count} times, separated by spaces.',
    'Repeat "{word}" {count} times.',
    'Write "{word}" {count} times.',
    'Say "{word}" {count} times.',
    'Print "{word}" {count} times, separated by single spaces.',
    'Type "{word}" {count} times in a row.',
    'Repeat "{word}" exactly {count} times.',
    'Write "{word}" exactly {count} times.',
    'Say "{word}" exactly {count} times.',
    'Can you repeat "{word}" {count} times?',
    'Can you write "{word}" {count} times?',
    'Could you say "{word}" {count} times?',
    'I want to read "{word}" {count} times.',
    'I need the word "{word}" {count} times, separated by spaces.',
    'Give me "{word}" {count} times.',
    'Give me the word "{word}" {count} times.',
    'Show the word "{word}" {count} times.',
    'Take the word "{word}" and repeat it {count} times.',
    'Take the word "{word}" and write it {count} times.',
    'Here is a word: "{word}". Repeat it {count} times.',
    'The word is "{word}". Write it {count} times.',
    'The word is "{word}". The number of times is {count}.',
    'Word: "{word}". Count: {count}.',
    'Fill a line with "{word}" {count} times, separated by spaces.',
    'Write a line with the word "{word}" {count} times.',
    "Repeat this word {count} times: {word}",
    "Write this word {count} times: {word}",
    "Say this word {count} times: {word}",
    "Print the following word {count} times: {word}",
    "Repeat the following word exactly {count} times: {word}",
    "Please write the following word {count} times: {word}",
    "Type {count} times the word {word}",
    'Write {count} times the word "{word}".',
    'Repeat {count} times the word "{word}".',
    'Say {count} times "{word}".',
    'Print {count} copies of the word "{word}".',
    'Write {count} copies of "{word}".',
    'Give me {count} copies of the word "{word}".',
    'Write {count} times "{word}", with single spaces between.',
    'I want {count} copies of "{word}", separated by spaces.',
    'Exactly {count} times, write the word "{word}".',
    'Now {count} times the word "{word}", please.',
    'Count: {count}. Word: "{word}".',
    "Number of times: {count}. Word to repeat: {word}",
)

MOST_ENDS = 20
"""Places at which an introduction may end that are tried."""

_INTRODUCTION_END = re.compile(r"[:.!?]+(?=[\s*_`\"'])|\n+")

SAME_PROMPT = PHRASINGS[0]


def prompt(phrasing: str, word: str, count: int) -> str:
    """One of `PHRASINGS` with its word and its count filled in."""
    return phrasing.format(word=word, count=count)


def repeated(word: str, count: int) -> str:
    """The expected answer: the word ``count`` times, separated by single spaces."""
    return " ".join([word] * count)


def counted(answer: str, word: str) -> int | None:
    """How many times an answer repeats a word.

    The word may be written in upper case, with numbers that count its repetitions, and with
    bullets, commas, other marks or line breaks between. An introduction may come first: a line or a
    sentence that says the word once at most.

    Returns:
        The count; None where the answer holds anything else, or the word not even once.
    """
    text, pattern = plain(answer), _tokens_of(plain(word))
    if (found := _repetitions(text, pattern)) is not None:
        return found
    for end in islice(_INTRODUCTION_END.finditer(text), MOST_ENDS):
        before, after = text[: end.end()], text[end.end() :]
        if _introduces(before, pattern) and (found := _repetitions(after, pattern)):
            return found
    return None


@lru_cache(maxsize=1024)
def _tokens_of(word: str) -> re.Pattern[str]:
    """A pattern of what an answer is made of: the word, numbers, and anything else."""
    itself = rf"(?P<itself>(?<![^\W_]){re.escape(word)}(?![^\W_]))"
    return re.compile(rf"{itself}|(?P<number>[0-9]+)|(?P<other>[^\W\d_]+)", re.IGNORECASE)


def _introduces(text: str, pattern: re.Pattern[str]) -> bool:
    """Whether a text talks, in sentences of its own that name the word once at most."""
    sentences = [
        [found.lastgroup for found in pattern.finditer(sentence)]
        for sentence in _INTRODUCTION_END.split(text)
    ]
    named = [said.count("itself") for said in sentences]
    talks = ["other" in said for said in sentences]
    return (
        any(talks)
        and sum(named) <= 1
        and all(t or not n for t, n in zip(talks, named, strict=True))
    )


def _repetitions(text: str, pattern: re.Pattern[str]) -> int | None:
    """The repetitions of a word in a text of nothing else, but for marks and an enumeration."""
    found = list(pattern.finditer(text))
    kinds = [one.lastgroup for one in found]
    count = kinds.count("itself")
    if not count or "other" in kinds:
        return None
    numbers = [one[0] for one in found if one.lastgroup == "number"]
    in_turn = all(one != two for one, two in pairwise(kinds))
    counting = in_turn and numbers == [str(n) for n in range(1, count + 1)]
    return count if counting or not numbers else None
