"""How far a regular expression of a tokenizer can look, in the parts of Oniguruma they use."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_RUNS = 16
"""Unbounded repetitions of a pattern at most."""

MAX_LENGTH = 512
"""Characters at most that the rest of a pattern matches or looks at."""

_PRINTABLE = {chr(code) for code in range(0x21, 0x7F)}
# General categories and scripts that hold printable characters and no space.
_NO_SPACE = re.compile(
    "[LMNPS][a-z&]?|Alphabetic|Letter|Mark|Number|Punct|Punctuation|Symbol|Han|Hiragana|Katakana|"
    "Hangul|Latin|Greek|Cyrillic|Arabic|Hebrew|Devanagari|Thai|Armenian|Georgian"
)
_ITEM = re.compile(
    r"\\[pP]\{(\^?[\w&]+)\}|\\[pP](\w)|\\x\{([0-9A-Fa-f]{1,6})\}|\\x([0-9A-Fa-f]{2})"
    r"|\\u([0-9A-Fa-f]{4})|\\(.)|(.)",
    re.DOTALL,
)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}


class Match(NamedTuple):
    """What is known of every match of a part of a pattern.

    Args:
        length: Characters that it looks at, at most; a run counts as one.
        runs: Repetitions without an upper limit.
        space: It may hold a space.
        printable: It may hold a printable ASCII character.
        crosses: It may hold a space after a printable character.
    """

    length: int = 0
    runs: int = 0
    space: bool = False
    printable: bool = False
    crosses: bool = False

    def then(self, other: Match) -> Match:
        """This one, directly followed by another."""
        crosses = self.crosses or other.crosses or (self.printable and other.space)
        return self.either(other)._replace(crosses=crosses)

    def either(self, other: Match) -> Match:
        """This one or another; how far both look adds up, which is more than enough."""
        return Match(
            self.length + other.length,
            self.runs + other.runs,
            self.space or other.space,
            self.printable or other.printable,
            self.crosses or other.crosses,
        )

    def repeated(self, most: int | None) -> Match:
        """Up to ``most`` of them in a row, or any number for None."""
        if most == 1:
            return self
        if most is None and (self.length != 1 or (self.space and self.printable)):
            raise _Unknown
        if most is not None and self.runs:
            raise _Unknown
        crosses = self.crosses or (self.space and self.printable)
        length, runs = (1, 1) if most is None else (self.length * most, 0)
        return self._replace(length=length, runs=runs, crosses=crosses)


class Characters(NamedTuple):
    """What a class of characters may match, as far as a cut at a space is concerned.

    Args:
        space: It may match a space.
        printable: It may match a printable ASCII character.
        surely_space: It does match a space.
    """

    space: bool
    printable: bool
    surely_space: bool = False


_ANY = Characters(True, True)


class _Unknown(Exception):
    """Something that is not known to be harmless."""


def stops_at_spaces(pattern: str) -> bool:
    """Whether matches end before a single space, and what they look at is near.

    No match holds a space after a printable ASCII character. It depends on ``MAX_LENGTH``
    characters, and on ``MAX_RUNS`` words or gaps between words, at most: whatever repeats without a
    limit is one class of characters that never matches both. Anything that is not understood gives
    False.
    """
    try:
        parser = _Parser(pattern)
        match = parser.alternatives()
    except (_Unknown, IndexError):
        return False
    near = match.runs <= MAX_RUNS and match.length <= MAX_LENGTH
    return parser.at == len(pattern) and near and not match.crosses


class _Parser:
    """Recursive descent over one pattern."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self.at = 0

    def alternatives(self) -> Match:
        """Up to the end of the pattern or of the group at hand."""
        match = branch = Match()
        while self.at < len(self._pattern) and self._pattern[self.at] != ")":
            if self._pattern[self.at] in "|^$":
                if self._pattern[self.at] == "|":
                    match, branch = match.either(branch), Match()
                self.at += 1
            else:
                branch = branch.then(self._part().repeated(self._quantifier()))
        return match.either(branch)

    def _part(self) -> Match:
        if self._pattern[self.at] == "(":
            return self._group()
        found = self._characters()
        return Match(1, 0, found.space, found.printable)

    def _group(self) -> Match:
        opening = re.compile(r"\((\?(:|=|!|<=|<!|>|i:))?(?!\?)").match(self._pattern, self.at)
        if opening is None:
            raise _Unknown  # flags, conditions, recursion, names
        self.at = opening.end()
        match = self.alternatives()
        if self._pattern[self.at] != ")":
            raise _Unknown
        self.at += 1
        looks_around = opening[2] in ("=", "!", "<=", "<!")
        return Match(match.length, match.runs) if looks_around else match

    def _quantifier(self) -> int | None:
        """Most repetitions of what came before, None for any number, 1 if nothing follows it."""
        found = re.compile(r"([*+?]|\{(\d*)(,?)(\d*)\})[?+]?").match(self._pattern, self.at)
        if found is None:
            return 1
        self.at = found.end()
        if found[1] in "*+":
            return None
        if found[1] == "?":
            return 1
        if found[3] and not found[4]:
            return None
        return max(1, int(found[4] or found[2]))

    def _characters(self) -> Characters:
        if self._pattern[self.at] == "[":
            return self._class()
        if self._pattern[self.at] == ".":
            self.at += 1
            return _ANY
        if self._pattern[self.at] in "*+?{":
            raise _Unknown
        return self._item()[0]

    def _item(self) -> tuple[Characters, str | None]:
        """One character or class name, and the character if it is one."""
        found = _ITEM.match(self._pattern, self.at)
        if found is None:
            raise _Unknown
        self.at = found.end()
        name, letter, *codes, escaped, plain = found.groups()
        if name or letter:
            negated = found[0][1] == "P" or (name or "").startswith("^")
            known = _NO_SPACE.fullmatch(name or letter) and not negated
            return (Characters(False, True) if known else _ANY), None
        if code := next(filter(None, codes), None):
            return _character(chr(int(code, 16)))
        if plain:
            return _character(plain)
        return _escaped(escaped)

    def _class(self) -> Characters:
        self.at += 1
        negated = self._pattern[self.at] == "^"
        self.at += negated
        members: list[Characters] = []
        while self._pattern[self.at] != "]" or not members:
            if self._pattern[self.at] in "[]" or self._pattern.startswith("&&", self.at):
                raise _Unknown  # classes within classes
            found, first = self._item()
            if self._pattern[self.at] == "-" and self._pattern[self.at + 1] != "]":
                self.at += 1
                last = self._item()[1]
                if first is None or last is None:
                    raise _Unknown
                found = _range(first, last)
            members.append(found)
        self.at += 1
        surely = any(member.surely_space for member in members)
        if negated:
            return Characters(not surely, True)
        return Characters(
            any(member.space for member in members),
            any(member.printable for member in members),
            surely,
        )


def _character(character: str) -> tuple[Characters, str]:
    is_space = character == " "
    return Characters(is_space, character in _PRINTABLE, is_space), character


def _range(first: str, last: str) -> Characters:
    has_space = first <= " " <= last
    return Characters(has_space, any(first <= c <= last for c in _PRINTABLE), has_space)


def _escaped(letter: str) -> tuple[Characters, str | None]:
    if letter in _CONTROLS:
        return _character(_CONTROLS[letter])
    if letter == "s":
        return Characters(True, False, surely_space=True), None
    if letter in "SwdbB":  # b and B are places, which are as harmless
        return Characters(False, True), None
    if letter in "WDhH":
        return _ANY, None
    if letter.isalnum():
        raise _Unknown  # back references, anchors, recursion, what is yet to come
    return _character(letter)
