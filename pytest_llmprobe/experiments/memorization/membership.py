"""Membership inference: was a text in a model's training data? Scores of one text each.

Every score is higher for likelier members, so each goes into ``statistics.ranking.roc_auc`` as it
is. They need the log-probabilities of the text's tokens (``whitebox.log_probabilities``) and no
model. None is a proof: a text can be likely because it is plain, so compare with texts of the same
kind that were surely never seen.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import asdict, dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_llmprobe.errors import CasesError, SettingsError

K = 20
"""Per cent of the tokens that min-k % looks at; what its authors settled on."""

SMALLEST_DEVIATION = 1e-6
"""Stands in for a standard deviation of zero, where a model is certain to the last bit."""

Floats: TypeAlias = npt.NDArray[np.float64]


class Measured(Protocol):
    """What a model says about the tokens of a text, but for the first: arrays [T - 1]."""

    @property
    def log_probability(self) -> Floats:
        """Of each token, given those before it; natural logarithms."""

    @property
    def mean(self) -> Floats:
        """Of the log-probability under the model's own distribution at that place."""

    @property
    def variance(self) -> Floats:
        """Likewise."""


@dataclass(frozen=True)
class MembershipScores:
    """The scores of one text, all of them higher for likelier members."""

    loss: float  # see `mean_log_probability`
    min_k: float
    min_k_plus_plus: float
    zlib: float  # see `zlib_ratio`
    reference: float | None = None  # see `reference_difference`; None without a reference model

    @property
    def perplexity(self) -> float:
        """exp(-loss), lower for likelier members: it ranks texts as ``loss`` does, backwards."""
        return math.exp(-self.loss) if self.loss > -700 else math.inf

    def as_dict(self) -> dict[str, float]:
        """The scores that there are, by name."""
        return {name: score for name, score in asdict(self).items() if score is not None}


def membership_scores(
    text: str, measured: Measured, *, reference: Measured | None = None, k: float = K
) -> MembershipScores:
    """All scores of one text, without special tokens.

    The reference is what another model says about it, one that never saw it; min-k % and min-k %++
    look at ``k`` per cent of the tokens.

    Raises:
        CasesError: No token has a log-probability, or one of the numbers is none.
        SettingsError: ``k`` is no percentage.
    """
    found = measured.log_probability
    return MembershipScores(
        loss=mean_log_probability(found),
        min_k=min_k(found, k),
        min_k_plus_plus=min_k_plus_plus(found, measured.mean, measured.variance, k),
        zlib=zlib_ratio(text, found),
        reference=None
        if reference is None
        else reference_difference(text, found, reference.log_probability),
    )


def mean_log_probability(log_probability: Floats) -> float:
    """The mean log-probability of the tokens, the negative of the loss (Yeom et al. 2018).

    Raises:
        CasesError: There are none, or one is not finite.
    """
    return float(_checked(log_probability).mean())


def min_k(log_probability: Floats, k: float = K) -> float:
    """Min-k %: the mean of the k % lowest log-probabilities (Shi et al. 2024, arXiv 2310.16789).

    A text that a model has not seen holds a few tokens that surprise it. Of n tokens the lowest
    floor(n k / 100) count, but at least one.

    Raises:
        CasesError: There are none, or one is not finite.
        SettingsError: ``k`` is not above 0 and at most 100.
    """
    return _mean_of_lowest(_checked(log_probability), k)


def min_k_plus_plus(log_probability: Floats, mean: Floats, variance: Floats, k: float = K) -> float:
    """Min-k %++: as min-k %, of standardised log-probabilities (Zhang et al. 2024, 2404.02936).

    (log p - mean) / sqrt(variance), with the mean and variance of the log-probability of a token
    that is drawn from the model's own distribution at that place.

    Raises:
        CasesError: There are none, one is not finite, or the arrays differ in length.
        SettingsError: ``k`` is not above 0 and at most 100.
    """
    found, mean, variance = _checked(log_probability), _checked(mean), _checked(variance)
    if not found.shape == mean.shape == variance.shape:
        raise CasesError(
            f"{found.size} log-probabilities, {mean.size} means and {variance.size} variances: "
            "give one of each for every token"
        )
    deviation = np.maximum(np.sqrt(np.maximum(variance, 0)), SMALLEST_DEVIATION)
    return _mean_of_lowest((found - mean) / deviation, k)


def zlib_ratio(text: str, log_probability: Floats) -> float:
    """Minus the log-perplexity over the text's zlib entropy (Carlini et al. 2021, section 5.2).

    That is the mean negative log-likelihood of a token (arXiv 2012.07805 takes the logarithm of
    the perplexity, so not the sum over tokens) divided by the bytes that zlib makes of the text's
    UTF-8; negated here. A text that is likely only because it repeats itself compresses well too.

    Raises:
        CasesError: There are no log-probabilities, or one is not finite.
    """
    return mean_log_probability(log_probability) / len(zlib.compress(_bytes(text)))


def reference_difference(
    text: str, log_probability: Floats, reference_log_probability: Floats
) -> float:
    """How much likelier the model finds the text than a reference model does, in nats a byte.

    Carlini et al. 2021, section 5.2, compare two models by the ratio of their log-perplexities;
    the difference of log-likelihoods is the logarithm of a likelihood ratio and stays calm where
    one of them is near zero. It is divided by the text's bytes in UTF-8 and not by tokens, so
    the models may have different tokenizers; give both a BOS token or neither.

    Raises:
        CasesError: The text or one of the arrays is empty, or a number is not finite.
    """
    if not text:
        raise CasesError("an empty text cannot be compared between two models: leave it out")
    model, reference = _checked(log_probability), _checked(reference_log_probability)
    return float(model.sum() - reference.sum()) / len(_bytes(text))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # JSON can hold half a surrogate pair


def _checked(values: Floats) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise CasesError(
            "the text has no token with a log-probability: its first token has none, so put the "
            "BOS token before it or leave it out"
        )
    if not np.isfinite(array).all():
        raise CasesError("a log-probability, mean or variance is NaN or infinite: leave it out")
    return array


def _mean_of_lowest(values: Floats, k: float) -> float:
    if not 0 < k <= 100:
        raise SettingsError(f"k {k!r} is no percentage above 0 and at most 100; 20 is usual")
    count = max(1, int(values.size * k / 100))
    return float(np.partition(values, count - 1)[:count].mean())
