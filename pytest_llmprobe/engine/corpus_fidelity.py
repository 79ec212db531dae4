"""A corpus to two models: perplexity of both, bits per byte, and the divergence token by token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import log
from typing import Any

from pytest_llmprobe.engine.corpus import CorpusScore, score_corpus
from pytest_llmprobe.engine.teacher_forcing import TeacherForcing
from pytest_llmprobe.errors import InvalidLogitsError, RequestError
from pytest_llmprobe.report.fidelity import FidelityColumns, case_fidelity
from pytest_llmprobe.statistics.divergence import fidelity
from pytest_llmprobe.statistics.ratios import ratio_interval

OTHER_TOKENS = "another tokenizer: only bits per byte compare"


def compare_corpus(
    base: CorpusScore,
    base_tokenizer: str,
    forcing: TeacherForcing,
    texts: Sequence[str],
    size: int,
) -> dict[str, Any]:
    """What a candidate gives to a corpus beside what its baseline gave.

    Args:
        base: The baseline's.
        base_tokenizer: Hash of its tokenizer.
        forcing: Runs the candidate.
        texts: The corpus.
        size: Tokens of a window at most.

    Returns:
        ``base`` and ``candidate`` (tokens, perplexity, bits_per_byte), ``bits_per_byte_change``
        with its ci95 over texts (windows, where there is one text), ``fidelity`` as of an
        experiment in the report, and a ``remark`` where the tokens differ.

    Raises:
        InvalidLogitsError: The candidate computed NaN or infinite scores for a window.
    """
    remark = None
    if forcing.loaded.info["tokenizer_hash"] != base_tokenizer:
        remark = OTHER_TOKENS
    else:
        try:
            return _token_by_token(base, forcing)
        except InvalidLogitsError:
            raise
        except RequestError as error:  # a vocabulary or a context that is too small
            remark = f"only bits per byte compare: {error}"
    candidate = score_corpus(forcing, texts, size, 1)
    return {**_scores(base, candidate), "fidelity": None, "remark": remark}


def _token_by_token(base: CorpusScore, forcing: TeacherForcing) -> dict[str, Any]:
    several = len({window.text for window in base.windows}) > 1
    columns, nats = FidelityColumns(), []
    seen = forcing.seen([window.forced for window in base.windows], base.distributions)
    decode = forcing.loaded.tokenizer.decode
    for number, (window, its, one) in enumerate(
        zip(base.windows, base.distributions, seen, strict=True)
    ):
        if isinstance(one, InvalidLogitsError):
            raise InvalidLogitsError(f"text {window.text + 1} of the corpus: {one}")
        pieces = [str(decode([token])) for token in window.forced.answer]
        case = case_fidelity(fidelity(its, one), pieces, remark=None)
        nats.append(-case["log_probability"])
        columns.add(f"text {window.text + 1}", case, window.text if several else number)
    candidate = CorpusScore(base.windows, nats, base.sizes, ())
    return {**_scores(base, candidate), "fidelity": columns.as_dict(), "remark": None}


def one_score(score: CorpusScore) -> dict[str, Any]:
    """What ``compare_corpus`` gives, of a model without a baseline."""
    own = {name: getattr(score, name) for name in ("tokens", "perplexity", "bits_per_byte")}
    texts = len({window.text for window in score.windows})
    return {"texts": texts, "bytes": round(sum(score.sizes)), "candidate": own}


def _scores(base: CorpusScore, candidate: CorpusScore) -> dict[str, Any]:
    """Both models' numbers, and the paired change of bits per byte."""
    several = len({window.text for window in base.windows}) > 1
    alike = not several and [w.forced for w in base.windows] == [
        w.forced for w in candidate.windows
    ]
    changes: dict[int, float] = defaultdict(float)
    sizes: dict[int, float] = defaultdict(float)
    for sign, score in ((-1, base), (1, candidate)):
        for number, (window, value) in enumerate(zip(score.windows, score.nats, strict=True)):
            cluster = number if alike else window.text
            changes[cluster] += sign * value / log(2)
    for number, (window, size) in enumerate(zip(base.windows, base.sizes, strict=True)):
        sizes[number if alike else window.text] += size
    interval = ratio_interval(list(changes.values()), list(sizes.values()), list(changes))
    return {
        "texts": len({window.text for window in base.windows}),
        "bytes": round(sum(base.sizes)),
        **{
            name: {
                "tokens": score.tokens,
                "perplexity": score.perplexity,
                "bits_per_byte": score.bits_per_byte,
            }
            for name, score in (("base", base), ("candidate", candidate))
        },
        "bits_per_byte_change": {
            "value": candidate.bits_per_byte - base.bits_per_byte,
            "ci95": None if interval is None else list(interval),
        },
    }
