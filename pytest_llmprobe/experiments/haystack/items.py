"""Which of some names or words an answer gives, and whether they are the required ones.

The names are those that a prompt holds; what else looks like one of them is invented.  They may
come in any order and form, counts and steps beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import comb

from pytest_llmprobe.experiments.answers import is_denied, plain
from pytest_llmprobe.experiments.haystack.reading import whole_words
from pytest_llmprobe.experiments.needle.list_scores import list_scores
from pytest_llmprobe.experiments.settled import WITHDRAWN, Asked
from pytest_llmprobe.generation import Completion


@dataclass(frozen=True)
class Items:
    """What a question asks for.

    Args:
        required: The right ones.
        known: All that the prompt holds, the right ones among them.
        looks: A pattern of what looks like one of them; None: nothing else does.
        what: What one is called: ``variable``.
    """

    required: tuple[str, ...]
    known: tuple[str, ...]
    looks: str | None = None
    what: str = "word"

    @property
    def chance(self) -> float:
        """Probability that a blind draw of as many of them as are required is right."""
        return 1 / comb(len(self.known), len(self.required))

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where a `plain` text says one of them, or what looks like one."""
        return [found.span() for found in whole_words(self.known, self.looks).finditer(text)]

    def said(self, text: str) -> Iterator[str]:
        """Those that a `plain` text says and does not deny, in order."""
        own = {name.lower(): name for name in self.known}
        for found in whole_words(self.known, self.looks).finditer(text):
            if not is_denied(text, *found.span()):
                yield own.get(found[0].lower(), found[0])


@dataclass(frozen=True)
class Given:
    """What an answer gives.

    Args:
        items: Each once, in order.
        problem: A word of the taxonomy, a colon, a sentence; empty for a right answer.
    """

    items: tuple[str, ...]
    problem: str = ""


def judge(completion: Completion, asked: Items, score: Callable[[str, float], None]) -> Given:
    """Judge an answer: it must give all that is required, and nothing else of the same kind.

    Where it comes to say what is final (``So the answer is:``), what stands before that is aside.

    Args:
        completion: The answer.
        asked: What the question asks for.
        score: Is told ``contains``, the share of what is required that the answer holds anywhere
            (RULER's ``string_match_all``, arXiv 2404.06654), ``precision``, ``recall``, ``f1``.
    """
    text = plain(completion.text)
    given = _settled(text, asked)
    if given.problem and completion.finish_reason == "length" and not _wrong(given, asked):
        said = "cut_off: max_new_tokens ran out before the answer was complete"
        given = Given(given.items, said)
    lower = completion.text.lower()
    score("contains", sum(name.lower() in lower for name in asked.required) / len(asked.required))
    for name, value in list_scores(given.items, asked.required, ordered=False).items():
        score(name, value)
    return given


def _settled(text: str, asked: Items) -> Given:
    """What an answer stands by; where it says what is final, that decides."""
    given = Asked(
        asked.places,
        len(asked.required),
        lambda part: _given(part, asked),
        lambda said: not said.problem,
        lambda name: name.lower() in {one.lower() for one in asked.required},
    ).verdict(text)
    return given or Given((), WITHDRAWN)


def _given(text: str, asked: Items) -> Given:
    items = tuple(dict.fromkeys(asked.said(text)))
    missing = [name for name in asked.required if name not in items]
    if wrong := _wrong(Given(items), asked):
        origin = "another one of the text" if wrong in asked.known else "not in the text"
        return Given(items, f"other_value: it gives {wrong}, which is {origin}")
    if not missing:
        return Given(items)
    if items:
        count = len(asked.required)
        return Given(items, f"missing_items: {len(missing)} of {count} {asked.what}s are missing")
    denied = [name for name in asked.required if name.lower() in text.lower()]
    if denied:
        return Given(items, f"denied: it says {denied[0]} only to deny it, or within another word")
    return Given(items, f"no_value: the answer holds no {asked.what} of the text")


def _wrong(given: Given, asked: Items) -> str | None:
    return next((name for name in given.items if name not in asked.required), None)
