"""What the user asked for, from command line, environment, ini and configuration file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_llmprobe.errors import ModelError, ReportError, SettingsError
from pytest_llmprobe.experiments.sources import read_datasets
from pytest_llmprobe.generation import Layers, Phase
from pytest_llmprobe.models.hub import check_hub
from pytest_llmprobe.models.registry import ModelSpec, check_folder, resolve, with_options
from pytest_llmprobe.models.token_counter import TokenCounter
from pytest_llmprobe.report.files import check_writable
from pytest_llmprobe.report.plan import Bar
from pytest_llmprobe.suite import Suite

DEFAULT_MODEL = "reference"


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    Args:
        model: Name of the model.
        spec: What that name means, with the loading options.
        suite: Profile, seed, trials, data.
        limit: Cases per experiment at most.
        batch_size: Rows of a batch, or None to let the engine choose.
        drafts: Whether the engine guesses tokens for the model to check.
        misses: ``count`` or ``fail``.
        gate: ``all``, ``thresholds``, ``baseline`` or ``none``.
        deltas: Values of Delta for every case with spans; empty: what the evaluation says.
        layers: Layers to steer.
        phase: When to steer.
        bars: This model's bars by experiment; False for an experiment that is not gated.
        storage: Folder of runs and baselines.
        report: Path of the report, or None for a folder in the storage.
        html: Path of the report as a page, or None.
        markdown: Path of the report as markdown, or None.
        save: Path of the baseline to write, or None.
        compare: The run to compare with: as the user named it, and its path; or None.
    """

    model: str
    spec: ModelSpec
    suite: Suite
    limit: int | None
    batch_size: int | None
    drafts: bool
    misses: str
    gate: str
    storage: Path
    report: Path | None
    deltas: tuple[float, ...] = ()
    layers: Layers = "all"
    phase: Phase = "all"
    html: Path | None = None
    markdown: Path | None = None
    save: Path | None = None
    compare: tuple[str, Path] | None = None
    bars: Mapping[str, Bar | bool] = field(default_factory=dict)

    @property
    def shown_layers(self) -> str:
        """The layers as the user may write them."""
        return self.layers if isinstance(self.layers, str) else ",".join(map(str, self.layers))

    def as_dict(self) -> dict[str, Any]:
        """For the report's ``config``."""
        return {
            "model": self.model,
            "profile": self.suite.profile,
            "seed": self.suite.seed,
            "trials": self.suite.trials,
            "datasets": {name: data.given for name, data in self.suite.datasets.items()},
            "limit": self.limit,
            "delta": list(self.deltas),
            "layers": self.shown_layers,
            "phase": self.phase,
            "batch_size": self.batch_size or "auto",
            "drafts": self.drafts,
            "dtype": self.spec.dtype,
            "device": self.spec.device,
            "device_map": self.spec.device_map,
            "attn_implementation": self.spec.attn_implementation,
            "quantization": self.spec.quantization,
            "trust_remote_code": self.spec.trust_remote_code,
            "misses": self.misses,
            "gate": self.gate,
            "compare": self.compare[0] if self.compare else None,
        }


OPTIONS = pytest.StashKey[Options]()


def options_of(config: pytest.Config) -> Options:
    """The session's options, read at the first call.

    Raises:
        pytest.UsageError: An option or the configuration file is wrong.
    """
    if OPTIONS not in config.stash:
        try:
            config.stash[OPTIONS] = _read(config)
        except (SettingsError, ModelError, ReportError) as error:
            raise pytest.UsageError(f"llmprobe: {error}") from None
    return config.stash[OPTIONS]


def check_explicit(config: pytest.Config) -> None:
    """Find out now whether what the command line names can be had: model, files, data.

    Raises:
        pytest.UsageError: The model is unknown or its folder damaged, a file cannot be written,
            there is no such run to compare with, or no such data.
    """
    try:
        options = options_of(config)
        for path in (options.report, options.html, options.markdown, options.save):
            if path is not None:
                check_writable(path)
        if options.compare is not None:
            from pytest_llmprobe.report.run_file import read_run

            read_run(options.compare[1])
        spec = options.spec
        if spec.folder is not None:
            check_folder(spec.folder)
        elif not config.option.collectonly:
            check_hub(spec)
    except (ModelError, ReportError) as error:
        raise pytest.UsageError(f"llmprobe: {error}") from None


def _read(config: pytest.Config) -> Options:
    option = config.option
    settings = read_settings(_settings_file(config))
    model = (
        option.llmprobe_model
        or os.environ.get("LLMPROBE_MODEL")
        or config.getini("llmprobe_model")
        or DEFAULT_MODEL
    )
    spec = with_options(
        resolve(model, settings.get("models", {})),
        dtype=option.llmprobe_dtype,
        device=option.llmprobe_device,
        device_map=option.llmprobe_device_map,
        attn_implementation=option.llmprobe_attn_implementation,
        quantization=option.llmprobe_quantization,
        trust_remote_code=option.llmprobe_trust_remote_code or None,
    )
    start = config.invocation_params.dir
    storage = (start / option.llmprobe_storage).resolve()
    return Options(
        model=model,
        spec=spec,
        suite=Suite(
            option.llmprobe_profile,
            option.llmprobe_seed,
            option.llmprobe_trials,
            read_datasets(option.llmprobe_dataset, start),
            counter=TokenCounter(spec),
        ),
        limit=option.llmprobe_limit,
        batch_size=option.llmprobe_batch_size,
        drafts=not option.llmprobe_no_drafts,
        misses=option.llmprobe_misses,
        gate=option.llmprobe_gate,
        storage=storage,
        report=_path(start, option.llmprobe_json),
        html=_path(start, option.llmprobe_html),
        markdown=_path(start, option.llmprobe_md),
        save=_baseline(option.llmprobe_save, storage, model),
        compare=_compared(config, storage, model),
        deltas=option.llmprobe_delta,
        layers=option.llmprobe_layers,
        phase=option.llmprobe_phase,
        bars=_bars(settings.get("gates", {}), model),
    )


def _path(start: Path, given: str | None) -> Path | None:
    return (start / given).resolve() if given else None


def _baseline(name: str | None, storage: Path, model: str) -> Path | None:
    from pytest_llmprobe.report.baseline import baseline_path

    return baseline_path(storage, model, name) if name else None


def _compared(config: pytest.Config, storage: Path, model: str) -> tuple[str, Path] | None:
    from pytest_llmprobe.report.run_file import find_run

    given = config.option.llmprobe_compare
    if given:
        return given, find_run(given, storage, model)
    if config.option.llmprobe_gate == "baseline":
        raise SettingsError("--llmprobe-gate baseline needs --llmprobe-compare NAME|PATH")
    return None


def _settings_file(config: pytest.Config) -> Path | None:
    if (given := config.option.llmprobe_config) is not None:
        path: Path = config.invocation_params.dir / given
        if not path.is_file():
            raise SettingsError(f"--llmprobe-config: there is no file {path}")
        return path
    candidates = (config.rootpath / "llmprobe.toml", config.rootpath / "pyproject.toml")
    return next((path for path in candidates if path.is_file()), None)


def read_settings(path: Path | None) -> dict[str, Any]:
    """``[tool.llmprobe]`` of a pyproject.toml, or a whole llmprobe.toml.

    Raises:
        SettingsError: No TOML, or a table that does not exist.
    """
    if path is None:
        return {}
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    tool = content.get("tool", {}).get("llmprobe", {})
    settings: dict[str, Any] = tool or ({} if path.name == "pyproject.toml" else content)
    if unknown := sorted(settings.keys() - {"models", "gates"}):
        raise SettingsError(f"{path}: unknown table {unknown[0]!r}; known: gates, models")
    return settings


def _bars(gates: Mapping[str, Mapping[str, Any]], model: str) -> dict[str, Bar | bool]:
    bars: dict[str, Bar | bool] = {}
    for experiment, bar in gates.get(model, {}).items():
        where = f"[tool.llmprobe.gates.{model}] {experiment}"
        if bar is False:
            bars[experiment] = False
        elif isinstance(bar, Mapping):
            bars[experiment] = Bar.of(bar, where)
        else:
            raise SettingsError(f"{where}: give a table such as {{ pass_rate = 0.9 }}, or false")
    return bars
