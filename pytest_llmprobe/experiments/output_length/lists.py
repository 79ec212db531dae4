"""Requests for a list of so many things: for models that cannot repeat a word.

How long the answer gets depends on the count, which was asked for, and on the things, which the
model chooses as it goes: what a probe finds beyond step and count, it finds in the states.
"""

from __future__ import annotations

import re

TOPICS = (
    *("animals", "birds", "cities", "colors", "countries", "flowers", "fruits", "games"),
    *("insects", "instruments", "islands", "jobs", "languages", "mountains", "planets", "rivers"),
    *("rooms", "shapes", "spices", "sports", "tools", "trees", "vegetables", "vehicles"),
)

PHRASINGS = (
    "List {count} {word}.",
    "Name {count} {word}.",
    "Name {count} different {word}.",
    "Give me a list of {count} {word}.",
    "Write a numbered list of {count} {word}.",
    "Write down {count} {word}, one on each line.",
    "What are {count} well-known {word}?",
    "Tell me {count} {word}. Give only their names.",
    "Make a short list of {count} {word}.",
    "I need the names of {count} {word}.",
    "Please list {count} {word} and nothing else.",
    "Which {count} {word} do you know?",
)

_ITEM = re.compile(
    r"^[ \t]*(?:\*\*|__)?(?:[0-9]{1,4}[.):]|[-*\u2022](?=[ \t]))[ \t]*\S", re.MULTILINE
)
_BETWEEN = re.compile(r"\s*(?:,|;|\band\b|\n)\s*")

MOST_WORDS = 4
"""Words of a thing's name where it is no item of its own line."""


def listed(answer: str) -> int | None:
    """How many things an answer lists.

    Lines with a number or a bullet, whatever else they say; without any, names with commas, "and"
    or line breaks between, after a first sentence that ends in a colon.

    Returns:
        Their number; None if the answer is no list.
    """
    if items := len(_ITEM.findall(answer)):
        return items
    _, colon, after = answer.partition(":")
    names = [name for name in _BETWEEN.split((after if colon else answer).strip(" \n.")) if name]
    if len(names) < 2 or any(len(name.split()) > MOST_WORDS for name in names):
        return None
    return len(names)
