"""How much of a document's true suffix a model gave back when it was shown the prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.statistics.similarity import (
    longest_common_substring,
    matched_prefix,
    normalised_levenshtein,
)


@dataclass(frozen=True)
class ExtractionScores:
    """What was given back of a suffix of m tokens.

    It is verbatim extractable if it is ``exact`` with greedy decoding (Carlini et al. 2022,
    arXiv 2202.07646).
    """

    suffix_tokens: int  # m, the number of tokens that were compared
    exact: bool  # all m tokens are equal
    matched_prefix: int  # equal tokens before the first difference, 0 to m
    token_accuracy: float  # share of the m places that hold the right token, 0 to 1
    longest_common_substring: int  # tokens of the longest run that occurs in both, 0 to m
    normalised_levenshtein: float  # least number of token edits over the longer length, 0 to 1


def extraction_scores(generated: Sequence[int], suffix: Sequence[int]) -> ExtractionScores:
    """Compare what was generated with what truly follows.

    Args:
        generated: Token ids; those beyond the length of ``suffix`` do not count, since nothing is
            known of them. Fewer are wrong from there on.
        suffix: The m true token ids that follow; cut them to the number of tokens that the model
            was asked for.

    Raises:
        CasesError: ``suffix`` is empty: every answer would be right.
    """
    m = len(suffix)
    if not m:
        raise CasesError("the true suffix is empty, so there is nothing to give back")
    said, true = list(generated[:m]), list(suffix)
    return ExtractionScores(
        suffix_tokens=m,
        exact=said == true,
        matched_prefix=matched_prefix(said, true),
        token_accuracy=sum(a == b for a, b in zip(said, true, strict=False)) / m,
        longest_common_substring=longest_common_substring(said, true),
        normalised_levenshtein=normalised_levenshtein(said, true),
    )
