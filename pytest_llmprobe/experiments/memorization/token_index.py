"""An exact index of a tokenised corpus: which k-token windows of a text occur in it, and where."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pytest_llmprobe.errors import CasesError, SettingsError

Tokens: TypeAlias = NDArray[np.int32]
Places: TypeAlias = NDArray[np.int64]
Hashes: TypeAlias = NDArray[np.uint64]

SEPARATOR = -1
"""Stands after each document; no token id equals it, so no match crosses a border."""

_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: 2**64 over the golden ratio
_SHIFT = np.uint64(29)


@dataclass(frozen=True)
class Match:
    """A run of tokens that a text shares with a document of the corpus."""

    start: int  # index of its first token in the text
    length: int  # number of tokens, at least the window of the index
    document: str  # the document's id
    offset: int  # index of its first token in the document


@dataclass(frozen=True, eq=False)
class TokenIndex:
    """All windows of a corpus in the order of their hashes; made by `build_index`.

    Every answer is compared token by token, so hashes that collide cost time and never a wrong
    answer. Holds 16 bytes for each token of the corpus.
    """

    window: int  # tokens of a window, k
    documents: Sequence[str]  # their ids
    starts: Places  # place of each document's first token, (documents,)
    tokens: Tokens  # all documents, each with the separator after it, (places,)
    hashes: Hashes  # of the windows within documents, ascending, (windows,)
    places: Tokens | Places  # where each window begins, ascending for equal hashes, (windows,)

    def find(self, tokens: Sequence[int], start: int = 0) -> Places:
        """Where in the corpus each window of a text occurs first.

        Equal windows have equal places, so that different places count different windows.

        Args:
            tokens: Token ids of the text: the prompt, say, and what was generated after it.
            start: First token of which windows are looked up: with the prompt's length, none
                overlaps the prompt.

        Returns:
            For each window that begins at ``start`` or after it, a place for `locate`, or -1 if
            the corpus does not hold it, (windows,). Empty if there is no whole window.

        Raises:
            CasesError: The tokens are no token ids.
            SettingsError: ``start`` is negative.
        """
        text = _checked(tokens, start)
        return self._find(text[start:])

    def matches(self, tokens: Sequence[int], start: int = 0) -> list[Match]:
        """The runs that a text shares with the corpus, from left to right.

        A run is the longest that begins at its token, wherever in the corpus (the first place, if
        several are as long). The next run is the first one that ends behind it; it may overlap it
        by less than a window. Text and start are as for `find`.

        Raises:
            CasesError: The tokens are no token ids.
            SettingsError: ``start`` is negative.
        """
        text = _checked(tokens, start)
        matches, free = [], start
        for window in (start + np.flatnonzero(self._find(text[start:]) >= 0)).tolist():
            if window < free:
                continue
            place, length = self._longest(text[window:])
            matches.append(Match(window, length, *self.locate(place)))
            free = window + length - self.window + 1
        return matches

    def count_windows(self, texts: Iterable[tuple[Sequence[int], int]]) -> Counter[int]:
        """How often each window of the corpus occurs in some texts, by its first place.

        The number of keys is the number of distinct matched windows; the counts of the counts are
        what Good-Turing estimates start from. Each text comes with its start, as for `find`.

        Raises:
            CasesError: The tokens are no token ids.
            SettingsError: A ``start`` is negative.
        """
        counts: Counter[int] = Counter()
        for tokens, start in texts:
            found = self.find(tokens, start)
            counts.update(found[found >= 0].tolist())
        return counts

    def locate(self, place: int) -> tuple[str, int]:
        """The document of a place, and the index of the token there in the document."""
        number = int(np.searchsorted(self.starts, place, side="right")) - 1
        return self.documents[number], int(place - self.starts[number])

    def _find(self, text: Tokens) -> Places:
        found = np.full(max(0, len(text) - self.window + 1), -1, dtype=np.int64)
        if not found.size:
            return found
        windows = sliding_window_view(text, self.window)
        of_corpus = sliding_window_view(self.tokens, self.window)
        candidate, end = self._range(window_hashes(text, self.window))
        pending = np.flatnonzero(candidate < end)
        while pending.size:
            places = self.places[candidate[pending]]
            same = (of_corpus[places] == windows[pending]).all(axis=1)
            found[pending[same]] = places[same]
            pending = pending[~same]
            candidate[pending] += 1  # another window of the same hash
            pending = pending[candidate[pending] < end[pending]]
        return found

    def _range(self, hashes: Hashes) -> tuple[Places, Places]:
        """The first of the corpus's windows with each hash, and the first behind them."""
        return (
            np.searchsorted(self.hashes, hashes, side="left"),
            np.searchsorted(self.hashes, hashes, side="right"),
        )

    def _longest(self, text: Tokens) -> tuple[int, int]:
        """Place and length of the longest run that begins a text; its first window occurs."""
        (first,), (end,) = self._range(window_hashes(text[: self.window], self.window))
        places, length = self.places[first:end], 0
        while length < len(text):
            longer = places[self.tokens[places + length] == text[length]]
            if not longer.size:
                break
            places, length = longer, length + 1
        return int(places[0]), length


def build_index(documents: Iterable[tuple[str, Sequence[int]]], window: int = 50) -> TokenIndex:
    """Index the windows of a corpus.

    Documents are read one by one; only their token ids are kept. At its peak it holds about 40
    bytes for each token.

    Args:
        documents: Id and token ids of each document.
        window: Tokens of a window, k; 50 in Nasr et al. 2023 (arXiv 2311.17035).

    Raises:
        CasesError: A document holds something else than token ids, or none is as long as a window.
        SettingsError: The window is below 1.
    """
    if window < 1:
        raise SettingsError(f"a window of {window} tokens: use at least 1")
    names: list[str] = []
    starts, buffer = array("q"), array("i")
    for name, ids in documents:
        names.append(name)
        starts.append(len(buffer))
        buffer.frombytes(_token_ids(ids, f"document {name!r}").tobytes())
        buffer.append(SEPARATOR)
    tokens = np.array(buffer, dtype=np.int32)
    firsts = np.array(starts, dtype=np.int64)
    del buffer
    within = _within_documents(firsts, len(tokens), window)
    if not within.any():
        raise CasesError(
            f"none of {len(names)} documents has {window} tokens: use a smaller window or more text"
        )
    places = np.flatnonzero(within)
    if len(tokens) < 2**31:
        places = places.astype(np.int32)
    hashes = window_hashes(tokens, window)[within[: len(tokens) - window + 1]]
    order = np.argsort(hashes, kind="stable")
    return TokenIndex(window, names, firsts, tokens, hashes[order], places[order])


def _within_documents(starts: Places, size: int, window: int) -> NDArray[np.bool_]:
    """For each place, whether a window that begins there ends in its document."""
    within = np.zeros(size, dtype=np.bool_)
    for start, end in pairwise([*starts.tolist(), size]):
        within[start : max(start, end - window)] = True  # the last one is the separator
    return within


def window_hashes(tokens: Tokens, window: int) -> Hashes:
    """A 64-bit hash of each window, (tokens - window + 1,); arithmetic is modulo 2**64.

    A run's hash is made from those of its two halves, so all windows of k tokens together take
    about 2 log2(k) passes over the tokens, of which there must be a window at least.
    """
    single = tokens.astype(np.uint64)
    hashes, length = single, 1
    for bit in f"{window:b}"[1:]:
        hashes, length = _joined(hashes[:-length], hashes[length:]), 2 * length
        if bit == "1":
            hashes, length = _joined(hashes[:-1], single[length:]), length + 1
    return hashes


def _joined(left: Hashes, right: Hashes) -> Hashes:
    hashes = left * _FACTOR
    hashes += right
    hashes ^= hashes >> _SHIFT
    return hashes


def _checked(tokens: Sequence[int], start: int) -> Tokens:
    if start < 0:
        raise SettingsError(f"start {start}: the first token to look up cannot be negative")
    return _token_ids(tokens, "the text")


def _token_ids(tokens: Sequence[int], owner: str) -> Tokens:
    if not len(tokens):
        return np.empty(0, dtype=np.int32)
    ids = np.asarray(tokens)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= 2**31:
        raise CasesError(f"{owner}: token ids are a list of whole numbers from 0 to {2**31 - 1}")
    return ids.astype(np.int32, copy=False)
