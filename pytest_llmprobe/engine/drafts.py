"""Guesses of what a model will say next, checked by the model itself: never an answer's source.

A guess costs its tokens in the next forward pass and saves one pass for each token that is right.
"""

from __future__ import annotations

from collections.abc import Sequence

NGRAM = 2
"""Tokens that must recur before what followed them is guessed again."""

LONGEST = 16
"""Tokens guessed at once at most."""

TRIED = 20
"""Tokens of a draft that are tried first; then twice as many each time while they are right, so
that at most this many more are wrong than right."""

ALLOWED = 8
"""Wrong guesses that a row may make besides as many as its right ones."""


class Guesser:
    """Guesses for one row: its draft as long as that is right, then the prompt's own words.

    Looking up in the prompt: what followed the last time that the latest tokens occurred
    (prompt lookup decoding). The guess doubles when it was wholly right; a row with ``ALLOWED``
    more wrong tokens than right ones guesses no more, so a model that repeats nothing pays little.
    """

    def __init__(self, prompt: Sequence[int], draft: Sequence[int], look_up: bool = True) -> None:
        self._text = list(prompt)
        self._draft = list(draft)
        self._said = 0
        self._tried = TRIED
        self._length = 2
        self._credit = ALLOWED if look_up else -1
        self._seen: dict[tuple[int, ...], int] | None = None

    def said(self, tokens: Sequence[int], guessed: int) -> None:
        """Learn what the model said: the right ones of ``guessed`` guessed tokens, and one more."""
        right = len(tokens) - 1
        if self._draft and list(tokens) != self._draft[self._said : self._said + len(tokens)]:
            self._draft = []
        elif self._draft:
            self._tried *= 2
        elif guessed:
            self._credit += 2 * right - guessed
            self._length = min(LONGEST, 2 * self._length) if right == guessed else 2
        self._said += len(tokens)
        for token in tokens:
            self._text.append(token)
            self._remember(len(self._text) - 1)

    def next(self, most: int, look_up: bool = True) -> list[int]:
        """At most ``most`` tokens that may follow; without ``look_up`` those of the draft alone."""
        if self._draft:
            return self._draft[self._said : self._said + min(most, self._tried)]
        if self._credit < 0 or most < 1 or not look_up:
            return []
        if self._seen is None:
            self._seen = {}
            for end in range(NGRAM, len(self._text)):
                self._remember(end)
        at = self._seen.get(tuple(self._text[-NGRAM:]))
        if at is None:
            return []
        period = self._text[at:]  # a repetition goes on from its own beginning
        return [period[i % len(period)] for i in range(min(self._length, most))]

    def _remember(self, end: int) -> None:
        """That the tokens before ``end`` were followed by the one there."""
        if self._seen is not None:
            self._seen[tuple(self._text[end - NGRAM : end])] = end
