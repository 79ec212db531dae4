"""Earlier runs that the user names: which one is meant, and whether it asked for the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.engine.completion_file import COMPLETIONS, run_of
from pytest_llmprobe.errors import ModelError, ReportError, SettingsError
from pytest_llmprobe.models.registry import ModelSpec, resolve
from pytest_llmprobe.plugin.command_line import LATEST, NEEDS_BASELINE

if TYPE_CHECKING:
    import pytest

CASE_OPTIONS = (
    *("profile", "seed", "delta", "layers", "phase", "datasets"),
    *("thinking", "thinking_tokens", "template", "date", "context", "max_new_tokens", "few_shot"),
    *("ask", "generate"),
)
"""Options that other cases, or other requests, come from."""

NUMBER_OPTIONS = ("dtype", "quantization", "attn_implementation", "device_map")
"""Options that the recorded answers were computed under."""


def find_answers(given: str, start: Path, storage: Path) -> Path:
    """The folder of answers that a user means by a run: a folder, its report, or its name.

    Raises:
        ReportError: There are none.
    """
    for path in (start / given, storage / "runs" / given):
        folder = path.parent if path.is_file() else path
        if (folder / COMPLETIONS).is_file():
            _check_model(path, folder)
            return folder.resolve()
    raise ReportError(f"there is no run {given!r} with answers: no {COMPLETIONS} in such a folder")


def _check_model(report: Path, folder: Path) -> None:
    """Make sure that the answers are of the report's model: runs may share a folder.

    Raises:
        ReportError: They are of another one, or the report cannot be read.
    """
    from pytest_llmprobe.report.run_file import read_json

    if report.is_file() and report.suffix == ".json":
        model, answered = read_json(report).get("model"), run_of(folder / COMPLETIONS).get("model")
        if answered != model:
            raise ReportError(
                f"{report} is of {model!r}, and the answers beside it are of {answered!r}: a later "
                "run wrote there"
            )


def latest_answers(model: str, folders: Iterable[Path]) -> Path:
    """The folder that a run of the model wrote answers into last.

    Raises:
        ReportError: There is none.
    """
    files = [folder / COMPLETIONS for folder in folders if (folder / COMPLETIONS).is_file()]
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        if run_of(file).get("model") == model:
            return file.parent.resolve()
    raise ReportError(
        f"--llmprobe-resume: no run of {model!r} has left answers; leave the option out to begin "
        "one, or name a run's folder"
    )


def guessed_from(model: str, compared: Path | None, storage: Path, own: Path) -> Path | None:
    """The file of an earlier run whose answers are guesses of this run's.

    Args:
        model: Name of the model.
        compared: The run that the user compares with, if there is one.
        storage: Folder of runs.
        own: Folder of this run.

    Returns:
        The compared run's if it has one, else that of the model's last other run, or None.
    """
    if compared is not None:
        folder = compared if compared.is_dir() else compared.parent
        if (folder / COMPLETIONS).is_file() and folder.resolve() != own.resolve():
            return folder / COMPLETIONS
    others = [
        folder for folder in (storage / "runs").glob("*") if folder.resolve() != own.resolve()
    ]
    try:
        return latest_answers(model, others) / COMPLETIONS
    except ReportError:  # none, or files of something else: then nothing is guessed
        return None


def resumed_run(
    config: pytest.Config, storage: Path, model: str, report: Path | None
) -> Path | None:
    """The folder of the run that goes on, or None.

    Raises:
        ReportError: There is no such run.
        SettingsError: It is to be replayed, too.
    """
    given: str | None = config.option.llmprobe_resume
    if given is None:
        return None
    if config.option.llmprobe_replay:
        raise SettingsError("--llmprobe-resume and --llmprobe-replay exclude each other")
    if given != LATEST:
        return find_answers(given, config.invocation_params.dir, storage)
    return latest_answers(model, [report.parent] if report else (storage / "runs").glob("*"))


def compared_run(config: pytest.Config, storage: Path, model: str) -> tuple[str, Path] | None:
    """The run to compare with, as the user named it and its path, or None.

    Raises:
        ReportError: There is no such run.
        SettingsError: The gate needs one, and none is named.
    """
    from pytest_llmprobe.report.run_names import find_run

    given = config.option.llmprobe_compare
    if given is not None:
        return given, find_run(given, storage, model)
    if (gate := config.option.llmprobe_gate) in NEEDS_BASELINE:
        raise SettingsError(f"--llmprobe-gate {gate} needs --llmprobe-compare NAME|PATH")
    return None


def check_calibration(option: Any) -> None:
    """Refuse to measure the noise of what is not kept, or is not generated again.

    Args:
        option: pytest's options.

    Raises:
        SettingsError: Says which options do not go together.
    """
    if not option.llmprobe_calibrate:
        return
    if not option.llmprobe_save:
        raise SettingsError(
            "--llmprobe-calibrate needs --llmprobe-save NAME, which keeps the noise"
        )
    for name, given in (("resume", option.llmprobe_resume), ("replay", option.llmprobe_replay)):
        if given:
            raise SettingsError(
                f"--llmprobe-calibrate repeats the run, and --llmprobe-{name} would repeat its "
                "recorded answers: give one of them"
            )


def check_same_cases(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse to replay a run with options that ask for other cases.

    Args:
        folder: The run's.
        config: This session's options, as the report shows them.

    Raises:
        SettingsError: An option differs; says what it was.
    """
    found = run_of(folder / COMPLETIONS).get("config")
    before = found if isinstance(found, dict) else {}
    for name in CASE_OPTIONS:
        if name in before and before[name] != config[name]:
            raise SettingsError(
                f"--llmprobe-replay: {folder.name} was made with {_option(name)} "
                f"{_shown(before[name])}, and this session has {_shown(config[name])}"
            )


def check_same_model(
    folder: Path, option: Any, spec: ModelSpec, models: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse to replay the answers of one model as those of another one that the user names.

    Args:
        folder: The run's.
        option: pytest's options.
        spec: This session's model.
        models: The user's registry entries.

    Raises:
        SettingsError: The model, or how it computes, is another one; says what it was.
    """
    header = run_of(folder / COMPLETIONS)
    model, config = str(header.get("model", "")), header.get("config")
    if option.llmprobe_model and _recorded_source(model, models) != _place(spec.source):
        raise SettingsError(
            f"--llmprobe-replay: the answers of {folder.name} are of {model!r} and not of "
            f"{option.llmprobe_model!r}: leave --model out, or run the model"
        )
    for name in NUMBER_OPTIONS:
        given = getattr(option, f"llmprobe_{name}")
        before = config.get(name) if isinstance(config, dict) else given
        if given not in (None, "auto", before):
            raise SettingsError(
                f"--llmprobe-replay: {folder.name} was made with {_option(name)} "
                f"{_shown(before or 'auto')}, and this session has {given}: leave it out, or run "
                "the model"
            )


def _recorded_source(model: str, models: Mapping[str, Mapping[str, Any]]) -> str:
    try:
        return _place(resolve(model, models).source)
    except ModelError:  # it has gone since: then it is not the one that is named now
        return model


def _place(source: str) -> str:
    """A folder however it is spelled; a hub id as it is."""
    return str(Path(source).resolve()) if Path(source).is_dir() else source


def _option(name: str) -> str:
    return f"--llmprobe-{name.removesuffix('s') if name == 'datasets' else name.replace('_', '-')}"


def _shown(value: object) -> str:
    return re.sub(r"[\[\]'{}]", "", str(value)) or "none"
