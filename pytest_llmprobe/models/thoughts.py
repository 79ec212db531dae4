"""Which part of what a model says is its thought: marks of thoughts, found at a text's very start.

One pass over the text, whatever is in it. Marks that a thought quotes or nests do not end it, and
those within an answer are the answer's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pytest_llmprobe.models.thought_marks import KNOWN, Mark

_SPACES = re.compile(r"\s*")

_HEADER = re.compile(r"<\|(?:end|eom|eot|im_end|start|begin|im_start)\|>(?:assistant:?)?$")
"""The end of a message, or the beginning of the next one, which is the answer's."""

_LONGEST = 100
"""Characters of a mark at most."""

_MOST_ORPHANS = 64
"""Closing marks without an opening one that are looked at."""


class Scanner:
    """Looks for the thought while a text grows.

    Args:
        marks: Of thoughts.
        opened: The mark that the prompt has opened already.

    Attributes:
        within: The text is in a thought.
        over: It is in the answer for good.
        spans: First character of each thought and the one after its last.
        answer_at: Where the answer begins; None while nothing was before it.
        unfinished: After ``finish``: the last thought has not ended.
    """

    def __init__(self, marks: Sequence[Mark], opened: Mark | None = None) -> None:
        self._marks = marks
        self._mark, self.within, self.over = opened, opened is not None, not marks
        self.spans: list[tuple[int, int]] = []
        self.answer_at: int | None = None
        self.unfinished = False
        self._text, self._at, self._passed = "", 0, 0  # what is held, its place, what is read of it
        self._begin(opened)
        self._again = opened is not None  # a model may repeat what the prompt has said

    @property
    def in_channels(self) -> bool:
        """In a thought that holds ends of messages."""
        return self.within and self._mark is not None and self._mark.channels

    def feed(self, piece: str) -> None:
        """Go on with the text."""
        if self.over:
            return
        self._text = self._text[self._passed :] + piece
        self._at, self._passed = self._at + self._passed, 0
        self._read(last=False)

    def finish(self) -> None:
        """There is no more text."""
        if self.over:
            return
        self._read(last=True)
        if self.within:
            end = self._at + len(self._text)
            self.unfinished = self._fallback is None
            start, after = self._fallback or (end, end)
            self.spans.append((self._start, start))
            self.answer_at, self.within = after, False
        self.over = True

    @property
    def _place(self) -> int:
        return self._at + self._passed

    def _begin(self, mark: Mark | None) -> None:
        """A thought begins here."""
        self._mark, self._depth, self._start = mark, 1, self._place
        self._fallback: tuple[int, int] | None = None
        self._before, self._odd = "", dict.fromkeys('"`', False)
        self._again = False
        if mark is not None:
            names = (mark.close,) if mark.channels else (mark.open, mark.close)
            self._names = re.compile("|".join(map(re.escape, names)))
            self._longest = max(map(len, names))

    def _read(self, last: bool) -> None:
        step = True
        while step and not self.over:
            step = self._think(last) if self.within else self._look(last)

    def _look(self, last: bool) -> bool:
        """Does a thought begin here? False if more text is needed to know."""
        first = _SPACES.match(self._text, self._passed)
        at = first.end() if first else self._passed
        for mark in self._marks:
            for name in (mark.open, mark.close):
                if self._text.startswith(name, at):
                    self._passed = at + len(name)
                    self.answer_at = self._place
                    if name == mark.open:
                        self.within = True
                        self._begin(mark)
                    return True
        if not last and self._may_be_mark(at):
            return False
        if self.answer_at is not None:
            self.answer_at = self._at + at
        self.over = True
        return True

    def _may_be_mark(self, at: int) -> bool:
        if len(self._text) - at > _LONGEST:
            return False
        body = self._text[at:]
        return any(name.startswith(body) for mark in self._marks for name in mark[:2])

    def _think(self, last: bool) -> bool:
        """Go on to the next mark within a thought. False if more text is needed."""
        found = self._names.search(self._text, self._passed)
        if found is None:
            end = len(self._text) if last else len(self._text) - self._longest + 1
            self._pass(max(end, self._passed))
            return False
        self._pass(found.start())
        after = self._text[found.end() : found.end() + 1]
        if not after and not last and self._may_quote():
            return False
        assert self._mark is not None
        if self._quoted(after):
            self._pass(found.end())
        elif found[0] == self._mark.open:
            # A model may say again what the prompt has said.
            repeated = self._again and not self._text_since_start(found.start()).strip()
            self._depth += 0 if repeated else 1
            self._again = False
            self._pass(found.end())
        else:
            self._close(found.start(), found.end())
        return True

    def _text_since_start(self, end: int) -> str:
        return self._text[max(0, self._start - self._at) : end]

    def _close(self, start: int, end: int) -> None:
        before = self._at + start
        self._depth -= 1
        self._pass(end)
        if self._depth:  # if no other mark ends the thought, the first one did
            self._fallback = self._fallback or (before, self._place)
            return
        self.spans.append((self._start, before))
        self.within, self.answer_at = False, self._place

    def _pass(self, end: int) -> None:
        """Read up to a place, with an eye on quotation marks."""
        segment = self._text[self._passed : end]
        line = segment.rpartition("\n")
        for quote, odd in self._odd.items():
            self._odd[quote] = (odd and not line[1]) ^ bool(line[2].count(quote) % 2)
        self._before = (self._before + segment[-2:])[-2:]
        self._again = self._again and not segment.strip()
        self._passed = end

    def _may_quote(self) -> bool:
        return self._before[-1:] in ('"', "`", "'", "“", "«")

    def _quoted(self, after: str) -> bool:
        """Whether the mark that comes is one that is spoken of."""
        before = self._before[-1:]
        if not after or not self._may_quote():
            return False
        if before == "'":
            return after == before and not self._before[:-1].isalnum()
        if before in self._odd:
            return after == before and self._odd[before]
        return after == {"“": "”", "«": "»"}[before]


class Parted(NamedTuple):
    """A text in its parts.

    Args:
        thought: None if there is none.
        answer: Empty where the thought has not ended.
    """

    thought: str | None
    answer: str


def part(text: str, marks: Sequence[Mark] = KNOWN) -> Parted:
    """Part a whole answer of a server, whose prompt is not known.

    A closing mark without an opening one counts where it stands as marks do and not as a word of a
    sentence: then the server's template has opened the thought.
    """
    scanner = Scanner(marks)
    scanner.feed(text)
    scanner.finish()
    if scanner.answer_at is None:
        found = _orphan(text, marks)
        return Parted(None, text) if found is None else _after(text, *found)
    said = thought_text([text[start:end] for start, end in scanner.spans])
    answer = "" if scanner.unfinished else text[scanner.answer_at :].lstrip()
    return Parted(said or ("" if scanner.unfinished else None), answer)


def thought_text(pieces: Iterable[str]) -> str:
    """A thought without white space and headers of messages around it."""
    kept = []
    for piece in pieces:
        piece = piece.strip()
        while header := _HEADER.search(piece, max(0, len(piece) - _LONGEST)):
            piece = piece[: header.start()].rstrip()
        kept.append(piece)
    return "\n\n".join(piece for piece in kept if piece)


def _after(text: str, start: int, end: int) -> Parted:
    return Parted(text[:start].strip() or None, text[end:].lstrip())


def _orphan(text: str, marks: Sequence[Mark]) -> tuple[int, int] | None:
    """The first closing mark that ends a thought which began before the text."""
    if not marks:
        return None
    names = re.compile("|".join(re.escape(mark.close) for mark in marks))
    opening = {mark.close: mark.open for mark in marks}
    for number, found in enumerate(names.finditer(text)):
        if number == _MOST_ORPHANS:
            break
        if _stands(text, found.start(), found.end(), opening[found[0]]):
            return found.span()
    return None


def _stands(text: str, start: int, end: int, opening: str) -> bool:
    """Whether a closing mark is no word of its line."""
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", end)
    before, after = text[first:start], text[end : None if last < 0 else last]
    head = text[:start].lstrip()
    if re.search(rf"^[ \t]*{re.escape(opening)}", text[:start], re.MULTILINE):
        return False  # the two are a pair of the answer's own
    if not before.strip():
        return True
    if opening in before or head.startswith(("{", "[", "```")):
        return False
    if not after.strip():
        return bool(text[end:].strip())
    if before[-1] in "\"'`“«" and after[0] in "\"'`”»":
        return False
    if before[-1].isspace():
        return before.rstrip()[-1] in ".?!…" or after[0].isalnum()
    return True
