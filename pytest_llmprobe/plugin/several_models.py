"""``--model=A,B,C``: a run of each model in a process of its own, then one table and one verdict.

The first keeps its run as a baseline, and the others are compared with it. Imported in every pytest
run of the environment; what it does is imported when several models are named.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmprobe.plugin.command_line import LATEST, NEEDS_BASELINE

if TYPE_CHECKING:
    from pytest_llmprobe.report.several import ModelRun

KEPT = "first-of-several"
"""Name of the first model's baseline where the user gives none."""

ONE_RUN = {
    "compare": "the first model is what the others are compared with",
    "replay": "a run's answers are one model's",
}
"""Options that mean one model's run, and why they do not go with several."""


def run_several(config: pytest.Config) -> int | None:
    """The exit code of the runs of all models; None if one is named, which is pytest's own.

    Raises:
        pytest.UsageError: A model cannot be had, or an option does not go with several.
    """
    names = named_models(config)
    option = config.option
    if len(names) < 2 or option.help or option.version:
        return None
    if option.collectonly:  # the cases are the same
        option.llmprobe_model = names[0]
        return None
    from pytest_llmprobe.errors import LlmprobeError

    try:
        return _Runs(config, names).all()
    except LlmprobeError as error:
        raise pytest.UsageError(f"llmprobe: {error}") from None


def named_models(config: pytest.Config) -> list[str]:
    """The models that the user names: all of the command line's, else what is said elsewhere."""
    arguments, _ = _at_paths(config)
    said = [name for _, name in getattr(config.option, "llmprobe_models", ())]
    here = sum(argument.partition("=")[0] in _options(config) for argument in arguments)
    said = said[-max(1, here) :]  # those of addopts, which come first, are overruled
    if not said:
        said = [os.environ.get("LLMPROBE_MODEL") or config.getini("llmprobe_model")]
    names: list[str] = []
    for name in said:
        names += [name] if "," not in name or Path(name).exists() else name.split(",")
    return [name.strip() for name in names]


def without_models(config: pytest.Config) -> tuple[list[str], list[str]]:
    """The arguments without the models that they name: those up to ``--``, and the rest."""
    arguments, rest = _at_paths(config)
    kept, skip = [], False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if not skip and name not in _options(config):
            kept.append(argument)
        skip = not skip and name in _options(config) and not equals
    return kept, rest


def without_resume(arguments: Sequence[str]) -> list[str]:
    """The arguments without ``--llmprobe-resume``, by itself or with the word for the last run."""
    option = "--llmprobe-resume"
    pairs = zip(["", *arguments], arguments, strict=False)
    kept = [one for before, one in pairs if (before, one) != (option, LATEST)]
    return [one for one in kept if one not in (option, f"{option}={LATEST}")]


def _at_paths(config: pytest.Config) -> tuple[list[str], list[str]]:
    """The arguments up to ``--``, which ends options, and from there on."""
    given = [os.fspath(argument) for argument in config.invocation_params.args]
    end = given.index("--") if "--" in given else len(given)
    return given[:end], given[end:]


def _options(config: pytest.Config) -> set[str]:
    """Options of ours that have named a model; ``--model`` may be another plugin's."""
    return {option for option, _ in getattr(config.option, "llmprobe_models", ())}


class _Runs:
    """The runs of several models.

    Raises:
        LlmprobeError: A model or a file cannot be had.
    """

    def __init__(self, config: pytest.Config, names: Sequence[str]) -> None:
        from pytest_llmprobe.errors import SettingsError
        from pytest_llmprobe.models.registry import registered
        from pytest_llmprobe.models.settings import read_settings, settings_file
        from pytest_llmprobe.report.model_names import canonical_name

        self._config, self._option, self._names = config, config.option, names
        self._start = config.invocation_params.dir
        if not all(names):
            raise SettingsError(f"--model={','.join(names)}: a name between commas is empty")
        for name, why in ONE_RUN.items():
            if getattr(self._option, f"llmprobe_{name}"):
                raise SettingsError(f"--llmprobe-{name} and several models: {why}; give one model")
        if self._option.llmprobe_resume not in (None, LATEST):
            raise SettingsError(
                "--llmprobe-resume RUN and several models: the run is one model's; leave the name "
                "out, and each goes on with its own"
            )
        file = settings_file(self._option.llmprobe_config, self._start, config.rootpath)
        self._models = read_settings(file).get("models", {})
        self._storage = (self._start / self._option.llmprobe_storage).resolve()
        known = registered(self._models)
        self._canonical = [canonical_name(name, known, self._storage.parent) for name in names]
        self._labels = list(_distinct(names))
        self._slugs = list(_distinct([_slug(name) for name in self._canonical]))
        self._check()

    def _check(self) -> None:
        """Find out before the first run whether all can be had."""
        from pytest_llmprobe.models.registry import resolve
        from pytest_llmprobe.models.token_counter import counter_of
        from pytest_llmprobe.plugin.answer_options import check_layers, read_spec
        from pytest_llmprobe.plugin.gate_options import refuse_empty
        from pytest_llmprobe.plugin.reachable import check_reachable
        from pytest_llmprobe.report.files import check_all_writable

        refuse_empty(self._option)
        check_all_writable(*map(self._path, ("json", "html", "md")))
        for name in self._names:
            spec = read_spec(self._option, resolve(name, self._models), self._start)
            check_reachable(spec, here_only=False)
            if spec.protocol is None:
                check_layers(self._option.llmprobe_layers, counter_of(spec))

    def _path(self, form: str) -> Path | None:
        given = getattr(self._option, f"llmprobe_{form}")
        return (self._start / given).resolve() if given else None

    def all(self) -> int:
        """Run them, say what came of it, and give the exit code."""
        from pytest_llmprobe.report.baseline import baseline_path

        kept = self._option.llmprobe_save or KEPT
        base = baseline_path(self._storage, self._canonical[0], kept)
        runs: list[ModelRun] = []
        before = _written(base)
        for number in range(len(self._names)):
            runs.append(self._run(number, kept, base))
            if runs[-1].code == pytest.ExitCode.INTERRUPTED:
                break
            if number == 0 and (runs[0].code not in (0, 1) or _written(base) == before):
                print("llmprobe: the first model's run is no baseline, so no other one is run")
                break
        return self._conclude(runs)

    def _run(self, number: int, kept: str, base: Path) -> ModelRun:
        from pytest_llmprobe.report.run_file import read_json
        from pytest_llmprobe.report.several import ModelRun

        report, page = self._report(number), self._sibling("html", number)
        before, paths = without_models(self._config)
        before = without_resume(before)
        own = [f"--llmprobe-model={self._names[number]}", f"--llmprobe-json={report}"]
        if (
            self._option.llmprobe_resume == LATEST
            and report.with_name("completions.jsonl").exists()
        ):
            own.append(f"--llmprobe-resume={report.parent}")
        for form, flag in (("html", "llmprobe-html"), ("md", "llmprobe-md")):
            if (path := self._sibling(form, number)) is not None:
                own.append(f"--{flag}={path}")
        if junit := getattr(self._option, "xmlpath", None):
            own.append(f"--junit-xml={self._beside(Path(junit), number)}")
        if number:
            own.append(f"--llmprobe-compare={base}")
        else:
            own.append(f"--llmprobe-save={kept}")
            if self._option.llmprobe_gate in NEEDS_BASELINE:
                own += ["--llmprobe-gate=none", "--no-llmprobe-require-judged"]
        print(f"llmprobe: model {number + 1} of {len(self._names)}: {self._names[number]}")
        sys.stdout.flush()
        code = _ended([sys.executable, "-m", "pytest", *before, *own, *paths], self._start)
        found = read_json(report) if report.exists() else None
        shown = None if page is None else page.name
        return ModelRun(self._labels[number], code, found, str(report), shown)

    def _report(self, number: int) -> Path:
        """Where a model's report goes: where the run that it goes on with is, or a new folder."""
        from pytest_llmprobe.errors import ReportError
        from pytest_llmprobe.plugin.earlier_run import latest_answers
        from pytest_llmprobe.report.files import open_run

        if self._option.llmprobe_resume == LATEST:
            folders = (self._storage / "runs").glob("*")
            try:
                return latest_answers(self._canonical[number], folders) / "report.json"
            except ReportError:  # it was not begun yet
                pass
        now = datetime.now(timezone.utc)
        return open_run(self._storage, self._canonical[number], None, now).report

    def _sibling(self, form: str, number: int) -> Path | None:
        path = self._path(form)
        return None if path is None else self._beside(path, number)

    def _beside(self, path: Path, number: int) -> Path:
        return path.with_name(f"{path.stem}-{self._slugs[number]}{path.suffix}")

    def _conclude(self, runs: Sequence[ModelRun]) -> int:
        from pytest_llmprobe.report import several
        from pytest_llmprobe.report.files import to_json, write_atomically
        from pytest_llmprobe.report.publish import add_to_job_summary
        from pytest_llmprobe.report.terminal import printable, terminal_width

        asked = len(self._names)
        verdict, reason, code = several.verdict(runs, asked)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
        text = several.overview_markdown(runs, asked)
        forms: dict[str, Callable[[], str]] = {
            "json": lambda: to_json(several.overview(runs, asked, now), indent=1) + "\n",
            "html": lambda: several.overview_page(runs, asked),
            "md": lambda: f"{text}\n",
        }
        print(f"\nllmprobe: {len(runs)} models, {runs[0].name} is the baseline")
        for line in several.table(runs, terminal_width()):
            print(line)
        for run in runs:
            print(f"{printable(run.name)}: report: {run.place}")
        for form, made in forms.items():
            if (path := self._path(form)) is not None:
                write_atomically(path, made())
                print(f"all models: {path}")
        add_to_job_summary(text)
        print(f"llmprobe: GATE {verdict} ({printable(reason)})")
        return code


def _ended(command: Sequence[str], folder: Path) -> int:
    """The exit code of a run; one that is interrupted, as this process is, first writes its report.

    A third interrupt kills it.
    """
    with subprocess.Popen(command, cwd=folder) as run:
        interrupts = 0
        while True:
            try:
                code = run.wait()
            except KeyboardInterrupt:
                interrupts += 1
                if interrupts > 2:
                    run.kill()
            else:
                return int(pytest.ExitCode.INTERRUPTED) if interrupts else code


def _written(path: Path) -> int | None:
    """When a file was written, if it is there: an earlier run's must not stand for this one's."""
    return path.stat().st_mtime_ns if path.exists() else None


def _slug(name: str) -> str:
    """What a file's name may have of a model's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-60:] or "model"


def _distinct(names: Sequence[str]) -> Iterator[str]:
    """The names, those that stand there again with a number."""
    taken: set[str] = set()
    for name in names:
        number, one = 1, name
        while one in taken:
            number += 1
            one = f"{name}-{number}"
        taken.add(one)
        yield one
