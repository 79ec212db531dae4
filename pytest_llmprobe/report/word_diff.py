"""What two answers to one question have in common, word by word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import TypeAlias

Piece: TypeAlias = tuple[int, str, str]
"""1 if the two texts are not the same here, else 0; what the first says, what the second says."""

MOST = 600
"""Words of a text that are held against those of the other one."""

_WORD = re.compile(r"\s+|\w+|[^\w\s]")


def word_diff(first: str | None, second: str | None) -> list[Piece] | None:
    """Both texts in pieces, in order; None where there is one text at most.

    The pieces together are the texts. Beginning and end that are the same are set aside first; what
    lies between them and is longer than ``MOST`` words is one piece.
    """
    if first is None or second is None:
        return None
    one, other = _WORD.findall(first), _WORD.findall(second)
    before = _same(one, other)
    after = _same(one[before:][::-1], other[before:][::-1])
    ends = len(one) - after, len(other) - after
    pieces = [
        _piece(0, one[:before], other[:before]),
        *_middle(one[before : ends[0]], other[before : ends[1]]),
        _piece(0, one[ends[0] :], other[ends[1] :]),
    ]
    return [piece for piece in pieces if piece[1] or piece[2]]


def _same(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words are the same from the beginning."""
    return next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )


def _middle(one: Sequence[str], other: Sequence[str]) -> list[Piece]:
    if max(len(one), len(other)) > MOST:
        return [_piece(1, one, other)]
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    return [
        _piece(int(tag != "equal"), one[a:b], other[c:d])
        for tag, a, b, c, d in matcher.get_opcodes()
    ]


def _piece(changed: int, one: Sequence[str], other: Sequence[str]) -> Piece:
    return changed, "".join(one), "".join(other)
