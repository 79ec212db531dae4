"""Token ids of long texts: each stretch is tokenised once, whatever follows it and in every run.

The ids are those of one call with the whole text. A long text is cut into pieces at places that
depend on the text before them only, so texts with a common beginning share their first pieces.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pytest_llmprobe.models.cuts import cut_rule
from pytest_llmprobe.models.encoding_cache import EncodingCache, Ids
from pytest_llmprobe.models.patterns import MAX_LENGTH, MAX_RUNS

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

LONG = 20_000
"""Characters from which on a text is worth more than a call of the tokenizer."""

PIECE = 32_768
"""Characters of a piece; the next place where the text may be cut ends it."""

BEFORE, AFTER = 1024, 2048
"""Characters before and after a piece that are tokenised with it."""

OVERLAP = 256
"""Characters on both sides of a cut where two neighbours must give the same tokens."""

MEMORY = 16_000_000
"""Tokens of pieces that are kept in memory."""


class Piece(NamedTuple):
    """Token ids of a stretch of a text, and those of the characters around it.

    Args:
        before: Of the last ``OVERLAP`` characters before it; empty where the text begins.
        ids: Its own.
        after: Of the first characters after it; empty where the text ends.
    """

    before: list[int]
    ids: list[int]
    after: list[int]


class LongTexts:
    """Encodes texts with a copy of a ``tokenizers`` tokenizer, which neither truncates nor pads.

    In a cache, if there is one, token ids outlive the process.
    """

    def __init__(self, tokenizer: Tokenizer, cache: EncodingCache | None = None) -> None:
        from tokenizers import Tokenizer

        written = tokenizer.to_str()
        content = json.loads(written)
        self._tokenizer: Tokenizer = Tokenizer.from_str(written)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._cache = cache
        parts = [content[part] for part in ("added_tokens", "normalizer", "pre_tokenizer", "model")]
        self._name = hashlib.sha256(json.dumps(["1", *parts]).encode()).hexdigest()
        self._rule = cut_rule(content)
        self._added = [token["content"] for token in content["added_tokens"]]
        self._widest = max(map(len, self._added), default=0)
        self._memory: OrderedDict[str, Piece] = OrderedDict()
        self._held = 0
        self._numbers: list[int] = []

    def ids(self, text: str, special_tokens: bool = False) -> list[int]:
        """Token ids of a text; from ``LONG`` characters on, what is known of it is used.

        With special tokens there is before and after it what the tokenizer says, such as BOS.
        """
        around = self._specials if special_tokens else ([], [])
        if len(text) < LONG or around is None:
            return self._encode(text, special_tokens).ids
        return around[0] + (self._in_pieces(text) or self._whole(text)) + around[1]

    @cached_property
    def _specials(self) -> tuple[list[int], list[int]] | None:
        """What goes before and after every text, if that can be told."""
        plain, full = (self._encode("a", special).ids for special in (False, True))
        for at in range(len(full)):
            if plain and full[at : at + len(plain)] == plain:
                return full[:at], full[at + len(plain) :]
        return None

    def _encode(self, text: str, special_tokens: bool = False) -> Encoding:
        return self._tokenizer.encode(text, add_special_tokens=special_tokens)

    def _whole(self, text: str) -> list[int]:
        key = self._key("whole", text)
        if (piece := self._known(key)) is None:
            piece = Piece([], self._encode(text).ids, [])
            self._keep(key, piece)
        return piece.ids

    def _in_pieces(self, text: str) -> list[int] | None:
        """The ids from pieces that fit together, or None if it is not certain that they do."""
        places = [0, *self._cuts(text), len(text)]
        if len(places) == 2:
            return None
        spans = list(pairwise(places))
        keys = [
            self._key(text[max(0, at - BEFORE) : at], text[at:end], text[end : end + AFTER])
            for at, end in spans
        ]
        pieces = [self._known(key) for key in keys]
        if None in pieces and (known := self._known(self._key("whole", text))) is not None:
            return known.ids  # an earlier try failed
        new: dict[str, Piece] = {}
        ids: list[int] = []
        last = Piece([], [], [])
        for key, (start, end), piece in zip(keys, spans, pieces, strict=True):
            if piece is None and (piece := self._piece(text, start, end)) is not None:
                new[key] = piece
            if piece is None or not _joined(last, piece):
                return None
            ids += piece.ids
            last = piece
        for key, piece in new.items():
            self._keep(key, piece)
        return ids

    def _cuts(self, text: str) -> list[int]:
        """Where the text may be cut; none at all if one that is due is not to be had."""
        cuts: list[int] = []
        at = 0
        while self._rule is not None and len(text) - at > PIECE + 2 * AFTER:
            found = self._rule.place.pattern.search(text, at + PIECE, at + PIECE + AFTER)
            if found is None or not self._may_cut(text, at := found.start()):
                return []
            cuts.append(at)
        return cuts

    def _may_cut(self, text: str, at: int) -> bool:
        """Whether no match can look past the margin and no added token is near."""
        words = sorted(map(len, text[at : at + AFTER].split(" ")))
        near = text[max(0, at - self._widest) : at + self._widest + 2]
        return sum(words[-MAX_RUNS:]) + MAX_RUNS + MAX_LENGTH < AFTER and not any(
            added in near for added in self._added
        )

    def _piece(self, text: str, start: int, end: int) -> Piece | None:
        """Encode a stretch with what is around it; None if a token or a word crosses its ends."""
        left = max(0, start - BEFORE)
        encoding = self._encode(text[left : end + AFTER])
        ids = encoding.ids
        first, last, head, tail = 0, len(ids), 0, len(ids)
        if start > 0:
            near = _token_at(encoding, start - left - OVERLAP)
            at = self._boundary(encoding, start - left)
            if near is None or at is None:
                return None
            head, first = near + 1, at
        if end < len(text):
            near = _token_at(encoding, end - left + OVERLAP)
            at = self._boundary(encoding, end - left)
            if near is None or at is None:
                return None
            tail, last = near, at
        if not head <= first < last <= tail or (start and head == first):
            return None
        return Piece(ids[head:first], ids[first:last], ids[last:tail])

    def _boundary(self, encoding: Encoding, at: int) -> int | None:
        """The first token from a character on, if none reaches across, nor a word."""
        token = _token_at(encoding, at)
        if token is None:
            return None
        while token and _span(encoding, token - 1)[0] >= at:
            token -= 1  # a token of the space alone, which some call as long as nothing
        if not token or _span(encoding, token)[0] < at or _span(encoding, token - 1)[1] > at:
            return None
        words = encoding.token_to_word(token - 1), encoding.token_to_word(token)
        in_one = self._rule is not None and self._rule.words and words[0] == words[1]
        return None if in_one else token

    def _key(self, *parts: str) -> str:
        digest = hashlib.sha256(self._name.encode())
        for part in parts:
            digest.update(f" {len(part)} ".encode())
            digest.update(part.encode())
        return digest.hexdigest()

    def _known(self, key: str) -> Piece | None:
        if key in self._memory:
            self._memory.move_to_end(key)
            return self._memory[key]
        stored = None if self._cache is None else self._cache.get(key)
        piece = None if stored is None else self._unpacked(stored)
        if piece is not None:
            self._remember(key, piece)
        return piece

    def _keep(self, key: str, piece: Piece) -> None:
        if self._cache is not None:
            sizes = [len(piece.before), len(piece.after)]
            self._cache.put(key, np.array([*sizes, *piece.before, *piece.ids, *piece.after]))
        self._remember(key, piece)

    def _remember(self, key: str, piece: Piece) -> None:
        if key not in self._memory:
            self._held += len(piece.ids)
        self._memory[key] = Piece(*map(self._shared, piece))
        while self._held > MEMORY and len(self._memory) > 1:
            _, oldest = self._memory.popitem(last=False)
            self._held -= len(oldest.ids)

    def _shared(self, ids: Sequence[int]) -> list[int]:
        """The ids as the same int objects everywhere: a million tokens are 8 MB and not 36."""
        if ids and (most := max(ids)) >= len(self._numbers):
            self._numbers.extend(range(len(self._numbers), most + 1))
        return list(map(self._numbers.__getitem__, ids))

    def _unpacked(self, stored: Ids) -> Piece | None:
        if stored.size < 2 or stored[0] + stored[1] > stored.size - 2:
            return None
        before, after, *numbers = stored.tolist()
        end = len(numbers) - after
        return Piece(numbers[:before], numbers[before:end], numbers[end:])


def _joined(left: Piece, right: Piece) -> bool:
    """Whether two neighbours give the same tokens to the characters around their cut."""
    before, after = right.before, left.after
    return left.ids[len(left.ids) - len(before) :] == before and right.ids[: len(after)] == after


def _token_at(encoding: Encoding, at: int) -> int | None:
    """The token of a character, or of the next one if that one has none, as spaces may."""
    token: int | None
    for place in (at, at + 1):
        if (token := encoding.char_to_token(place)) is not None:
            return token
    return None


def _span(encoding: Encoding, token: int) -> tuple[int, int]:
    """The characters of a token; a span that reaches everywhere if the library knows none."""
    return encoding.token_to_chars(token) or (-1, 1 << 60)
