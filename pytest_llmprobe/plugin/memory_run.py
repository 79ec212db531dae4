"""Behind ``evaluate``: a pytest run in this process, of a model that is in its memory already."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.plugin.nested_runs import ALWAYS, LOG
from pytest_llmprobe.plugin.process import HELD, RUN

if TYPE_CHECKING:
    from pytest_llmprobe.models.in_memory import HeldModel


def evaluate(
    model: Any,
    tokenizer: Any,
    *,
    evals: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    limit: int | None = None,
    profile: str = "ci",
    seed: int = 0,
    name: str | None = None,
    storage: str | os.PathLike[str] = ".llmprobe",
    options: Sequence[str] = (),
) -> dict[str, Any]:
    """Run evaluations on a transformers model in memory, in this process.

    The model is asked as it is, wrapped by PEFT, DataParallel or torch.compile or not, and given
    back as it was: each module in its mode, the generation config its own, the random generators
    where they were. A gate that fails does not raise: it is in the report.

    Args:
        model: The model, on the device it is to be asked on.
        tokenizer: Its tokenizer.
        evals: Files and folders of evaluations, as pytest takes them: ``evals/needle``.
        limit: Cases of each experiment at most.
        profile: Size of the grids: ``smoke``, ``ci`` or ``full``.
        seed: Of all cases.
        name: What the report calls the model; what it was loaded from, if left out.
        storage: Folder in which the run's own is made: report, records and pytest's output.
        options: Further options of pytest and this plugin, such as ``["-k", "single"]``.

    Returns:
        The report, as docs/report.md describes it.

    Raises:
        ModelError: It is no transformers model, or the tokenizer is none.
        SettingsError: pytest ran no evaluation; holds what it said.
    """
    from pytest_llmprobe.models.in_memory import HeldModel, borrowed

    held = HeldModel.of(model, tokenizer, name)
    given = [evals] if isinstance(evals, str | os.PathLike) else list(evals)
    paths = [os.fspath(path) for path in given]
    if not paths:
        raise SettingsError("evals is empty: name files or folders of evaluations")
    for path in paths:
        if not Path(path.partition("::")[0]).exists():
            raise SettingsError(f"evals: {path} is no file or folder in {Path.cwd()}")
    how = [f"--llmprobe-profile={profile}", f"--llmprobe-seed={seed}"]
    how += [f"--llmprobe-storage={os.fspath(storage)}"]
    how += [f"--llmprobe-limit={limit}"] if limit is not None else []
    arguments = [*ALWAYS, "-p", "no:cacheprovider", *how, *options, *paths]
    plugin, said = _Plugin(held), io.StringIO()
    with borrowed(held.model), redirect_stdout(said), redirect_stderr(said):
        code = pytest.main(arguments, plugins=[plugin])
    if code == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    return plugin.report(int(code), said.getvalue())


class _Plugin:
    """Puts the model where the run looks for it, and finds the run's report."""

    def __init__(self, held: HeldModel) -> None:
        self._held = held
        self._config: pytest.Config | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Before the options are read."""
        config.stash[HELD] = self._held
        self._config = config

    def report(self, code: int, said: str) -> dict[str, Any]:
        """The report of the run, and what pytest said beside it."""
        run = None if self._config is None else self._config.stash.get(RUN, None)
        lines = [line for line in said.splitlines() if line.strip()]
        if run is None or not run.plan or not run.folder.files.report.is_file():
            why = next((line for line in lines if "llmprobe: " in line or "ERROR" in line), None)
            last = why or (lines[-1] if lines else "nothing")
            raise SettingsError(f"pytest ran no evaluation (exit code {code}); it said: {last}")
        path = run.folder.files.report
        path.with_name(LOG).write_text(said, encoding="utf-8")
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return report
