"""Fidelity in a run: what a baseline keeps of its answers, and how a candidate is held against it.

Every process looks at the units that it asks: a baseline's process leaves files of distributions in
the session's scratch folder, which the recorder joins; a candidate's results ride on its records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.generation import Completion, Request
from pytest_llmprobe.plugin.run_texts import RunTexts, texts_path

if TYPE_CHECKING:
    from pytest_llmprobe.engine import Engine
    from pytest_llmprobe.engine.answer_fidelity import AnswerFidelity
    from pytest_llmprobe.engine.distribution_file import DistributionFile
    from pytest_llmprobe.engine.served_fidelity import ServedFidelity
    from pytest_llmprobe.plugin.options import Options
    from pytest_llmprobe.plugin.process import Process

NOT_HERE = "the model is not in this process, and what answers tells no log-probabilities"


def distribution_path(compared: Path) -> Path:
    """Where the distributions of a baseline are, by the path of its file."""
    return compared.with_suffix(".npz")


class RunFidelity:
    """What one process of a session does about fidelity.

    Args:
        process: This one.
        options: What the user asked for.
    """

    def __init__(self, process: Process, options: Options) -> None:
        wanted = options.fidelity != "off" and options.replay is None
        self._process = process
        self._keeps = wanted and options.save is not None
        self._model, self._full = options.model, options.full
        self.texts = RunTexts(process, options)
        self._base = distribution_path(options.compare[1]) if options.compare else None
        if not wanted or self._base is None or not self._base.is_file():
            self._base = None
        self._file: DistributionFile | None = None
        self._parts = 0
        self._pass: tuple[Engine, AnswerFidelity | ServedFidelity | None] | None = None
        self._found: dict[str, dict[str, Any]] = {}

    def look_at(
        self,
        engine: Engine,
        names: Sequence[str],
        asked: Sequence[Request],
        outcomes: Sequence[Any],
    ) -> None:
        """Look at the answers of a unit, whose tests have these names.

        Raises:
            ReportError: The baseline's file is damaged, or this run's cannot be written.
        """
        self.texts.measure_once(engine)
        if not self._keeps and self._base is None:
            return
        looker = self._looker(engine)
        if self._base is not None:
            self._compare(looker, self._base, dict(zip(names, asked, strict=True)))
        if self._keeps and looker is not None:
            answered = {
                name: (request, outcome)
                for name, request, outcome in zip(names, asked, outcomes, strict=True)
                if isinstance(outcome, Completion)
            }
            self._keep(looker, answered)

    def _looker(self, engine: Engine) -> AnswerFidelity | ServedFidelity | None:
        if self._pass is None or self._pass[0] is not engine:
            from pytest_llmprobe.engine.fidelity import answer_fidelity

            self._pass = engine, answer_fidelity(engine, full=self._full)
        return self._pass[1]

    def _compare(
        self,
        looker: AnswerFidelity | ServedFidelity | None,
        base: Path,
        asked: Mapping[str, Request],
    ) -> None:
        from pytest_llmprobe.engine.distribution_file import DistributionFile
        from pytest_llmprobe.report.fidelity import not_measured

        if self._file is None:
            self._file = DistributionFile(base)
        kept = {name: self._file[name] for name in asked if name in self._file}
        if looker is None:
            self._found |= {name: not_measured(NOT_HERE) for name in kept}
        else:
            self._found |= looker.compare(self._file.maker, kept, asked)

    def _keep(
        self,
        looker: AnswerFidelity | ServedFidelity,
        answered: Mapping[str, tuple[Request, Completion]],
    ) -> None:
        from pytest_llmprobe.engine.distribution_file import write_distributions

        kept = looker.keep(answered)
        folder = self._process.make_scratch() / "fidelity"
        path = folder / f"{self._process.name or 'only'}-{self._parts:06}.npz"
        write_distributions(path, looker.maker(self._model), kept)
        self._parts += 1

    def of(self, name: str) -> dict[str, Any] | None:
        """What was found of a case, told once."""
        return self._found.pop(name, None)

    def known(self, name: str) -> dict[str, Any] | None:
        """The same, as often as it is asked for before that."""
        return self._found.get(name)

    def save(self, baseline: Path) -> list[str]:
        """Join what all processes have left into one file beside the baseline.

        Returns:
            Lines for the terminal.

        Raises:
            ReportError: It cannot be written.
        """
        from pytest_llmprobe.engine.distribution_file import DistributionFile, write_distributions

        path = distribution_path(baseline)
        parts = [
            DistributionFile(part)
            for part in sorted((self._process.scratch / "fidelity").glob("*.npz"))
        ]
        said = self.texts.save(baseline)
        if not parts:
            path.unlink(missing_ok=True)  # an older baseline's of this name
            return said
        kept = {name: part[name] for part in parts for name in part}
        maker = next((part.maker for part in parts if len(part)), parts[0].maker)
        write_distributions(path, maker, [kept[name] for name in sorted(kept)])
        tokens = sum(len(one.tokens) for one in kept.values())
        return [*said, f"distributions: {path} ({len(kept)} answers, {tokens} tokens)"]


def checked_file(compared: Path, texts: object) -> None:
    """Make sure that a baseline's distributions can be read, before anything is asked.

    Args:
        compared: The baseline's file.
        texts: The corpus that is to be compared, too, or None.

    Raises:
        ReportError: They are damaged, or it keeps no corpus.
    """
    if texts is not None and not texts_path(compared).is_file():
        raise ReportError(
            f"--llmprobe-fidelity {texts}: {compared} keeps no corpus: make the baseline with this "
            "option, or give answers"
        )
    for path in (distribution_path(compared), texts_path(compared)):
        if path.is_file():
            from pytest_llmprobe.engine.distribution_file import DistributionFile

            DistributionFile(path)
