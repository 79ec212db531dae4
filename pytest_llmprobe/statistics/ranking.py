"""How well a score tells two groups apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def roc_auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The area under the ROC curve: P(positive > negative) + P(equal) / 2 (Mann-Whitney).

    Args:
        positive: Scores of the group that should score higher.
        negative: Scores of the other group.

    Raises:
        ValueError: A group is empty or holds a NaN.
    """
    high, low = np.asarray(positive, dtype=float), np.sort(np.asarray(negative, dtype=float))
    if not high.size or not low.size or np.isnan(high).any() or np.isnan(low).any():
        raise ValueError("the area under a ROC curve needs numbers in both groups")
    below = np.searchsorted(low, high, side="left") + np.searchsorted(low, high, side="right")
    return float(below.sum() / (2 * high.size * low.size))
