"""What the regular expressions of tokenizers can match, in the parts of Oniguruma that they use.

Only printable ASCII characters and the space are told apart, since texts are cut between such.
"""

from __future__ import annotations

import re
import unicodedata
from operator import add
from typing import NamedTuple, TypeAlias

Characters: TypeAlias = frozenset[str]

MAX_RUNS = 16
"""Unbounded repetitions on the way through a pattern at most."""

MAX_LENGTH = 512
"""Characters at most that the rest of a pattern matches or looks at."""

SPACE: Characters = frozenset(" ")
PRINTABLE: Characters = frozenset(map(chr, range(0x21, 0x7F)))
ALL = SPACE | PRINTABLE

_ITEM = re.compile(
    r"\\[pP]\{(\^?[\w&]+)\}|\\[pP](\w)|\\x\{([0-9A-Fa-f]{1,6})\}|\\x([0-9A-Fa-f]{2})"
    r"|\\u([0-9A-Fa-f]{4})|\\(.)|(.)",
    re.DOTALL,
)
_CATEGORY = re.compile("[LMNPSZ][a-z]?")
_FOREIGN = {"Han", "Hiragana", "Katakana", "Hangul", "Greek", "Cyrillic", "Arabic", "Hebrew"}
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_CLASSES: dict[str, Characters] = {
    "s": SPACE,
    "d": frozenset("0123456789"),
    "w": frozenset(c for c in PRINTABLE if c.isalnum() or c == "_"),
}
_CLASSES |= {letter.upper(): ALL - members for letter, members in _CLASSES.items()}
_CLASSES |= dict.fromkeys("bB", frozenset())  # places, which hold nothing


class _Unknown(Exception):
    """Something that is not known to be harmless."""


class Match(NamedTuple):
    """What is known of every match of a part of a pattern.

    Args:
        holds: Characters that it may hold.
        crosses: It may hold a character of the first kind and, later, one of the second.
        taken: Characters in it, at most; a run counts as one.
        length: The same with those that it looks at before and after itself.
        runs: Repetitions without an upper limit.
    """

    holds: Characters = frozenset()
    crosses: bool = False
    taken: int = 0
    length: int = 0
    runs: int = 0


def crosses(pattern: str, before: Characters, after: Characters) -> bool:
    """Whether a match may hold a character of ``before`` and, later, one of ``after``, or look far.

    Near are ``MAX_LENGTH`` characters and ``MAX_RUNS`` words, or gaps between words: whatever
    repeats without a limit must be one class of characters that does not match both a space and a
    printable character. What is not understood may cross.
    """
    try:
        parser = _Parser(pattern, before, after)
        match = parser.alternatives()
    except (_Unknown, IndexError, ValueError, RecursionError):
        return True
    far = match.runs > MAX_RUNS or match.length > MAX_LENGTH
    return match.crosses or far or parser.at < len(pattern)


class _Parser:
    """Recursive descent over one pattern."""

    def __init__(self, pattern: str, before: Characters, after: Characters) -> None:
        self._pattern, self._before, self._after = pattern, before, after
        self.at = 0

    def alternatives(self) -> Match:
        """Up to the end of the pattern or of the group at hand."""
        match = branch = Match()
        while self.at < len(self._pattern) and self._pattern[self.at] != ")":
            if self._pattern[self.at] in "|^$":
                if self._pattern[self.at] == "|":
                    match, branch = _either(match, branch), Match()
                self.at += 1
            else:
                branch = self._then(branch, self._repeated(self._part()))
        return _either(match, branch)

    def _then(self, first: Match, second: Match) -> Match:
        crosses = bool(first.holds & self._before and second.holds & self._after)
        crosses = crosses or first.crosses or second.crosses
        return Match(first.holds | second.holds, crosses, *map(add, first[2:], second[2:]))

    def _repeated(self, match: Match) -> Match:
        most = self._quantifier()
        if most == 1:
            return match
        mixed = bool(match.holds & SPACE and match.holds & PRINTABLE)
        if match.runs or (most is None and (match.taken != 1 or mixed)):
            raise _Unknown
        twice = self._then(match, match)
        if most is None:
            return twice._replace(taken=1, length=match.length, runs=1)
        return twice._replace(taken=match.taken * most, length=match.length * most)

    def _quantifier(self) -> int | None:
        """Most repetitions of what came before, None for any number, 1 if nothing follows it."""
        found = re.compile(r"([*+?]|\{(\d*)(,?)(\d*)\})[?+]?", re.ASCII).match(
            self._pattern, self.at
        )
        if found is None:
            return 1
        self.at = found.end()
        if found[1] in "*+" or (found[3] and not found[4]):
            return None
        return 1 if found[1] == "?" else max(1, int(found[4] or found[2]))

    def _part(self) -> Match:
        start = self._pattern[self.at]
        if start == "(":
            return self._group()
        if start in "*+?{":
            raise _Unknown
        if start == ".":
            self.at += 1
            return Match(ALL, False, 1, 1)
        return Match(self._class() if start == "[" else self._item()[0], False, 1, 1)

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
        return Match(length=match.length, runs=match.runs) if looks_around else match

    def _item(self) -> tuple[Characters, str | None]:
        """What one character or class name matches, and the character if it is one."""
        found = _ITEM.match(self._pattern, self.at)
        if found is None:
            raise _Unknown
        self.at = found.end()
        name, letter, *codes, escaped, plain = found.groups()
        if name or letter:
            return _property(name or letter, negated=found[0][1] == "P"), None
        if code := next(filter(None, codes), None):
            plain = chr(int(code, 16))
        elif escaped in _CLASSES:
            return _CLASSES[escaped], None
        elif escaped:
            plain = _CONTROLS.get(escaped, escaped)
            if plain.isalnum():
                raise _Unknown  # back references, anchors, recursion, what is yet to come
        return frozenset(plain) & ALL, plain

    def _class(self) -> Characters:
        self.at += 1
        negated = self._pattern[self.at] == "^"
        self.at += negated
        members: Characters = frozenset()
        first = True
        while first or self._pattern[self.at] != "]":
            if self._pattern[self.at] in "[]" or self._pattern.startswith("&&", self.at):
                raise _Unknown  # classes within classes
            found, start = self._item()
            if self._pattern[self.at] == "-" and self._pattern[self.at + 1] != "]":
                self.at += 1
                end = self._item()[1]
                if start is None or end is None:
                    raise _Unknown
                found = frozenset(c for c in ALL if start <= c <= end)
            members |= found
            first = False
        self.at += 1
        return ALL - members if negated else members


def _either(one: Match, other: Match) -> Match:
    crosses = one.crosses or other.crosses
    return Match(one.holds | other.holds, crosses, *map(max, one[2:], other[2:]))


def _property(name: str, negated: bool) -> Characters:
    """The characters of a general category or of a script."""
    if name.startswith("^"):
        name, negated = name[1:], not negated
    if _CATEGORY.fullmatch(name):
        members = frozenset(c for c in ALL if unicodedata.category(c).startswith(name))
    elif name in _FOREIGN:
        members = frozenset()
    else:
        raise _Unknown
    return ALL - members if negated else members
