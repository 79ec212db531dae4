"""A corpus in a run (``--llmprobe-fidelity FILE``): what the model gives to it, once in a session.

The first process that has the model measures and leaves what it found in the session's scratch
folder: numbers for the report, distributions for a baseline.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.errors import CasesError, LlmprobeError, ReportError, SettingsError

if TYPE_CHECKING:
    from pytest_llmprobe.data.sources import Dataset, Sample
    from pytest_llmprobe.engine import Engine
    from pytest_llmprobe.plugin.options import Options
    from pytest_llmprobe.plugin.process import Process

WORDS = ("off", "answers")
"""Values of the option that are no file."""

NOT_HERE = "a corpus needs the model in this process"

WHOLE = 2**62
"""Characters of a text at most: all of them."""


def read_texts(given: str, start: Path) -> Dataset | None:
    """The corpus that the option names, looked for but not read.

    Raises:
        SettingsError: There is no such file.
    """
    from pytest_llmprobe.data.sources import read_datasets

    if given in WORDS:
        return None
    try:
        return read_datasets([f"texts={given}"], start)["texts"]
    except SettingsError as error:
        why = str(error).partition(": ")[2] or str(error)
        raise SettingsError(f"--llmprobe-fidelity {given}: {why}; or give off or answers") from None


def check_texts(texts: Dataset) -> None:
    """Make sure that a corpus holds a text, before anything is asked.

    Raises:
        SettingsError: It holds none, or its first one cannot be read.
    """
    try:
        next(texts.texts())
    except (CasesError, StopIteration) as error:
        why = str(error).removeprefix(f"{texts}: ") or "it holds no text"
        raise SettingsError(f"--llmprobe-fidelity {texts.given}: {why}") from None


def texts_path(compared: Path) -> Path:
    """Where a baseline's look at a corpus is, by the path of its file."""
    return compared.with_suffix(".texts.npz")


class RunTexts:
    """What a session does with a corpus.

    Args:
        process: This one.
        options: What the user asked for.
    """

    def __init__(self, process: Process, options: Options) -> None:
        self._process, self._options = process, options
        self._texts = options.texts if options.replay is None else None

    @property
    def _found(self) -> Path:
        return self._process.scratch / "texts.json"

    @property
    def _kept(self) -> Path:
        return self._process.scratch / "texts.npz"

    def measure_once(self, engine: Engine) -> None:
        """Measure the corpus, unless it has been or none is asked for.

        Raises:
            LlmprobeError: It cannot be read, or the model computed no numbers.
        """
        if self._texts is None or not self._process.is_first("texts"):
            return
        said: dict[str, Any] = {"source": self._texts.given, **EMPTY}
        loaded = getattr(engine.backend, "loaded", None)
        try:
            sample = self._texts.sample(longest=WHOLE)
            said["source"] = sample.origin
            if loaded is None:
                said["remark"] = NOT_HERE
            else:
                said |= self._measured(engine, sample)
        except LlmprobeError as error:  # it is not the case's at hand: the report says so
            said["remark"] = str(error)
        self._found.write_text(json.dumps(said), encoding="utf-8")

    def _measured(self, engine: Engine, sample: Sample) -> dict[str, Any]:
        from pytest_llmprobe.engine.corpus import WINDOW, score_corpus
        from pytest_llmprobe.engine.corpus_fidelity import compare_corpus, one_score
        from pytest_llmprobe.engine.corpus_file import kept_corpus, read_corpus
        from pytest_llmprobe.engine.distribution_file import (
            DistributionFile,
            Maker,
            write_distributions,
        )
        from pytest_llmprobe.engine.teacher_forcing import TeacherForcing
        from pytest_llmprobe.statistics.divergence import TOP

        loaded: Any = engine.backend.loaded  # type: ignore[attr-defined] # there is one
        forcing, texts = TeacherForcing(loaded), list(sample.texts)
        tokenizer = str(loaded.info["tokenizer_hash"])
        found: dict[str, Any] = {}
        if self._options.save is not None or self._options.compare is None:
            score = score_corpus(forcing, texts, WINDOW)
            found = one_score(score)
            if self._options.save is not None:
                maker = Maker(self._options.model, tokenizer, min(TOP, forcing.vocabulary))
                write_distributions(self._kept, maker, kept_corpus(score, sample.origin))
        if self._options.compare is not None:
            file = DistributionFile(texts_path(self._options.compare[1]))
            base = read_corpus(file, texts, sample.origin, loaded)
            found = compare_corpus(base, file.maker.tokenizer_hash, forcing, texts, WINDOW)
        return found

    def found(self) -> dict[str, Any] | None:
        """For the report; None where no corpus was asked for, or nothing was asked."""
        try:
            said: dict[str, Any] = json.loads(self._found.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return said

    def save(self, baseline: Path) -> list[str]:
        """Keep it beside a baseline; a line for the terminal, if there is something to say.

        Raises:
            ReportError: It cannot be written.
        """
        path = texts_path(baseline)
        try:
            if not self._kept.is_file():
                path.unlink(missing_ok=True)  # an older baseline's of this name
                return []
            path.write_bytes(self._kept.read_bytes())
        except OSError as error:
            raise ReportError(f"{path} cannot be written: {error.strerror}") from None
        return [f"distributions of the corpus: {path}"]


EMPTY: Mapping[str, Any] = {
    **dict.fromkeys(("texts", "bytes", "base", "candidate", "bits_per_byte_change")),
    **dict.fromkeys(("fidelity", "remark")),
}
"""What the report says of a corpus of which nothing was measured."""
