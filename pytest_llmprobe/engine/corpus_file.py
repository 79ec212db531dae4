"""A baseline's look at a corpus as a file of distributions, and back."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_llmprobe.engine.completions import prompt_hash
from pytest_llmprobe.engine.corpus import (
    CorpusScore,
    Window,
    bytes_of_windows,
    text_windows,
)
from pytest_llmprobe.engine.distribution_file import DistributionFile, KeptAnswer
from pytest_llmprobe.engine.teacher_forcing import Forced
from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.models.loading import LoadedModel

DIGITS = 9
"""Of a text's and a window's number in its name, so that names are in order."""


def kept_corpus(score: CorpusScore, origin: str) -> list[KeptAnswer]:
    """The windows of a corpus as a file keeps them.

    Args:
        score: What a model gave to it.
        origin: What tells its texts from others, such as their digest.
    """
    return [
        KeptAnswer(
            f"{window.text:0{DIGITS}}/{number:0{DIGITS}}",
            prompt_hash(window.forced.prompt),
            origin,
            len(window.forced.answer),
            window.forced.answer,
            found,
        )
        for number, (window, found) in enumerate(
            zip(score.windows, score.distributions, strict=True)
        )
    ]


def read_corpus(
    file: DistributionFile, texts: Sequence[str], origin: str, loaded: LoadedModel
) -> CorpusScore:
    """What a baseline gave to a corpus.

    Args:
        file: Of what ``kept_corpus`` gave.
        texts: The corpus.
        origin: What tells its texts from others.
        loaded: The candidate, whose tokenizer cuts the texts as the baseline's did if it is the
            same: a file keeps what was scored, and not what stands before it.

    Raises:
        ReportError: The file is of other texts, or holds none.
    """
    kept = [file[name] for name in file]
    if not kept:
        raise ReportError(f"{file.path} holds no text of a corpus")
    if {one.text for one in kept} != {origin}:
        raise ReportError(
            f"{file.path} is of other texts than {origin}: measure the baseline on these, or the "
            f"candidate on {kept[0].text}"
        )
    cut = [Window(int(one.name.partition("/")[0]), Forced((0,), one.tokens)) for one in kept]
    if file.maker.tokenizer_hash == loaded.info["tokenizer_hash"]:
        size = max(len(one.tokens) for one in kept)
        cut = text_windows(loaded, texts, size)
        if [(w.forced.answer, prompt_hash(w.forced.prompt)) for w in cut] != [
            (one.tokens, one.prompt_hash) for one in kept
        ]:
            raise ReportError(f"{file.path} does not hold the windows of {origin}: make it again")
    nats = [-float(one.found.answer.sum(dtype="float64")) for one in kept]
    return CorpusScore(cut, nats, bytes_of_windows(cut, texts), [one.found for one in kept])
