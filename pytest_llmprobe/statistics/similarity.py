"""How alike two sequences are: edit, position, set and count measures.

The items are anything hashable: token ids, or the characters of a string.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pytest_llmprobe.errors import CasesError, SettingsError

Items: TypeAlias = Sequence[Hashable]
Codes: TypeAlias = NDArray[np.int64]


def levenshtein(a: Items, b: Items) -> int:
    """Least number of insertions, deletions and substitutions that turn ``a`` into ``b``.

    The length of the other one if one is empty. Takes len(a) * len(b) steps, a row at a time
    (Wagner and Fischer 1974, JACM 21:168).
    """
    short, long = _codes(*sorted((a, b), key=len))
    places = np.arange(len(long) + 1)
    row = places
    for number, item in enumerate(short, 1):
        reached = np.empty_like(row)
        reached[0] = number
        np.minimum(row[:-1] + (long != item), row[1:] + 1, out=reached[1:])
        row = np.minimum.accumulate(reached - places) + places  # insertions, from left to right
    return int(row[-1])


def normalised_levenshtein(a: Items, b: Items) -> float:
    """Levenshtein distance over the longer length: 0 (equal) to 1; 0 if both are empty."""
    return levenshtein(a, b) / max(len(a), len(b), 1)


def hamming(a: Items, b: Items) -> int:
    """Number of places where two sequences of one length differ; 0 if both are empty.

    Raises:
        CasesError: The lengths differ.
    """
    if len(a) != len(b):
        raise CasesError(
            f"Hamming distance of {len(a)} and {len(b)} items: use sliding_hamming or levenshtein"
        )
    return sum(1 for x, y in zip(a, b, strict=True) if x != y)


def sliding_hamming(a: Items, b: Items) -> int:
    """Least Hamming distance between the shorter sequence and a window of the longer one.

    Either may be the shorter. An empty sequence is 0 from everything, so an empty answer must be
    dealt with before.
    """
    short, long = _codes(*sorted((a, b), key=len))
    windows = len(long) - len(short) + 1
    differences = np.zeros(windows, dtype=np.int64)
    for place, item in enumerate(short):
        differences += long[place : place + windows] != item
    return int(differences.min())


def jaccard(a: Items, b: Items) -> float:
    """Shared over all different items (Jaccard 1912): 0 to 1; 1 if both are empty."""
    left, right = set(a), set(b)
    return len(left & right) / len(left | right) if left or right else 1.0


def dice(a: Items, b: Items) -> float:
    """Twice the shared over the sum of both numbers of different items (Dice 1945): 0 to 1.

    1 if both are empty.
    """
    left, right = set(a), set(b)
    return 2 * len(left & right) / (len(left) + len(right)) if left or right else 1.0


def cosine(a: Items, b: Items) -> float:
    """Cosine of the angle between the vectors of item counts: 0 to 1, whatever the order.

    1 if both are empty, 0 if one is.
    """
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    left, right = Counter(a), Counter(b)
    product = sum(n * right[item] for item, n in left.items())
    squares = sum(n * n for n in left.values()) * sum(n * n for n in right.values())
    return min(1.0, product / math.sqrt(squares))


def kl_divergence(a: Items, b: Items, alpha: float = 1.0) -> float:
    """Kullback-Leibler divergence of the items of ``a`` from those of ``b``, in nats.

    Sum of p ln(p / q), where p and q are the relative frequencies in ``a`` and ``b`` over the items
    of both, with ``alpha`` added to each count (1 is Laplace's rule). Not symmetric. An empty
    sequence is uniform; 0 if both are empty.

    Raises:
        SettingsError: ``alpha`` is not a finite number above 0.
    """
    if not 0 < alpha < math.inf:
        raise SettingsError(f"alpha = {alpha!r}: additive smoothing needs a number above 0")
    left, right = Counter(a), Counter(b)
    items = list(left | right)
    p = np.array([left[item] for item in items]) + alpha
    q = np.array([right[item] for item in items]) + alpha
    p, q = p / p.sum(), q / q.sum()
    return max(0.0, float((p * np.log(p / q)).sum()))


def longest_common_substring(a: Items, b: Items) -> int:
    """Length of the longest run of items that occurs in both; 0 if one is empty.

    Takes len(a) * len(b) steps, a row at a time.
    """
    short, long = _codes(*sorted((a, b), key=len))
    row = np.zeros(len(long) + 1, dtype=np.int64)  # run that ends at each place of the longer one
    longest = 0
    for item in short:
        row[1:] = np.where(long == item, row[:-1] + 1, 0)
        longest = max(longest, int(row.max()))
    return longest


def matched_prefix(a: Items, b: Items) -> int:
    """Number of items before the first difference; 0 if one is empty."""
    length = min(len(a), len(b))
    return next((place for place in range(length) if a[place] != b[place]), length)


def _codes(a: Items, b: Items) -> tuple[Codes, Codes]:
    """Both sequences as integers, equal where the items are equal."""
    numbers: dict[Hashable, int] = {}
    left, right = (
        np.array([numbers.setdefault(item, len(numbers)) for item in items], dtype=np.int64)
        for items in (a, b)
    )
    return left, right
