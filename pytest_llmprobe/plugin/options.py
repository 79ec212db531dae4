"""What the user asked for, from command line, environment, ini and configuration file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_llmprobe.data.sources import Dataset, read_datasets
from pytest_llmprobe.engine.endpoints.options import EndpointOptions
from pytest_llmprobe.errors import ModelError, ReportError, SettingsError
from pytest_llmprobe.generation import Layers, Phase
from pytest_llmprobe.generation.config import THINKING_TOKENS
from pytest_llmprobe.models.dates import clock
from pytest_llmprobe.models.registry import ModelSpec, registered, resolve, tokenizer_spec
from pytest_llmprobe.models.settings import Gates, read_gates, read_settings, settings_file
from pytest_llmprobe.models.token_counter import counter_of
from pytest_llmprobe.plugin.answer_options import (
    check_layers,
    model_said,
    read_endpoint,
    read_engine,
    read_generation,
    read_self_check,
    read_spec,
)
from pytest_llmprobe.plugin.command_line import REPEAT
from pytest_llmprobe.plugin.earlier_run import (
    check_calibration,
    check_same_cases,
    check_same_model,
    compared_run,
    find_answers,
    resumed_run,
)
from pytest_llmprobe.plugin.gate_options import Require, as_repeat, read_require, refuse_empty
from pytest_llmprobe.plugin.process import HELD
from pytest_llmprobe.plugin.run_texts import read_texts
from pytest_llmprobe.plugin.units import UNIT_SIZE
from pytest_llmprobe.report.baseline import baseline_path
from pytest_llmprobe.report.model_names import canonical_name
from pytest_llmprobe.report.plan import Bar
from pytest_llmprobe.suite import AnswerRoom, Suite

LOADING = (
    *("dtype", "device", "device_map", "attn_implementation", "quantization", "adapter"),
    *("trust_remote_code", "context"),
)
"""Fields of the spec that a report's config has by the same names."""

UNIT_WAVES = 8
"""Requests of a unit for each that is under way: a unit waits for its slowest answer once."""


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    Args:
        model: Name of the model.
        spec: What that name means, with the loading options.
        suite: Profile, seed, trials, data.
        limit: Cases per experiment at most.
        batch_size: Rows of a batch, or None to let the engine choose.
        token_budget: Tokens of a batch, or None to let the engine choose.
        drafts: Whether the engine guesses tokens for the model to check.
        misses: ``count`` or ``fail``.
        gate: ``all``, ``thresholds``, ``baseline``, ``same-prompts`` or ``none``.
        require: Whether what was asked to be judged must be; `Require`.
        allowed_drop: What a pass rate may fall by against the run compared with, or None.
        deltas: Values of Delta for every case with spans; empty: what the evaluation says.
        layers: Sets of layers to steer, each tried by itself.
        phase: When to steer.
        engine: What generates: ``process``, ``shared``, ``openvino`` or ``vllm``.
        endpoint: How a server is asked, if the model is behind one.
        gates: Bars by model and experiment; False for an experiment that is not gated.
        storage: Folder of runs and baselines.
        report: Path of the report, or None for a folder in the storage.
        html: Path of the report as a page, or None.
        markdown: Path of the report as markdown, or None.
        save: Path of the baseline to write, or None.
        compare: The run to compare with: as the user named it, and its path; or None.
        resume: Folder of the run that goes on, or None.
        replay: Folder of the run whose answers are scored again, or None.
        calibrate: How often to repeat the run for the baseline's noise; 0: not at all.
        self_check: Whether to ask a few prompts in several ways, too.
        generation: Generation options that hold for every experiment, whatever its marker says.
        fidelity: Whether distributions of answers are kept and compared: not if it is ``off``.
        texts: The corpus that is looked at, too, or None.
        full: Whether the distributions are kept whole.
        judge: The model that judges answers, or None.
    """

    model: str
    spec: ModelSpec
    suite: Suite
    limit: int | None
    batch_size: int | None
    token_budget: int | None
    drafts: bool
    misses: str
    gate: str
    storage: Path
    report: Path | None
    deltas: tuple[float, ...] = ()
    layers: tuple[Layers, ...] = ("all",)
    phase: Phase = "prefill"
    html: Path | None = None
    markdown: Path | None = None
    save: Path | None = None
    compare: tuple[str, Path] | None = None
    engine: str = "process"
    endpoint: EndpointOptions = field(default_factory=EndpointOptions)
    resume: Path | None = None
    replay: Path | None = None
    calibrate: int = 0
    allowed_drop: float | None = None
    self_check: bool = False
    require: Require = "nothing"
    gates: Gates = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)
    fidelity: str = "answers"
    texts: Dataset | None = None
    full: bool = False
    judge: ModelSpec | None = None
    tokenizer_of: ModelSpec | None = None  # into whose tokens texts are cut, see `tokenizer_spec`

    @property
    def report_place(self) -> Path:
        """The report's path, or that of one in a folder that is still to be made."""
        own = self.storage / "runs" if self.resume is None else self.resume
        return self.report or own / "report.json"

    @property
    def bars(self) -> Mapping[str, Bar | bool]:
        """This model's bars by experiment, if anything is gated at all."""
        return self.gates.get(self.model, {}) if self.gate != "none" else {}

    @property
    def unit_size(self) -> int:
        """Cases of a work unit; behind a server more, so that its requests stay under way."""
        behind_server = self.spec.protocol is not None
        return max(UNIT_SIZE, UNIT_WAVES * self.endpoint.concurrency if behind_server else 0)

    @property
    def layer_sets(self) -> dict[str, Layers]:
        """The sets of layers by what the user may write for them."""
        return {
            layers if isinstance(layers, str) else ",".join(map(str, layers)): layers
            for layers in self.layers
        }

    def as_dict(self) -> dict[str, Any]:
        """For the report's ``config``."""
        return {
            "model": self.model,
            "profile": self.suite.profile,
            "seed": self.suite.seed,
            "trials": self.suite.trials,
            "datasets": {name: data.given for name, data in self.suite.datasets.items()},
            "limit": self.limit,
            "max_new_tokens": str(self.suite.answer_room),
            "generate": {k: v for k, v in self.generation.items() if k != "thinking_tokens"},
            "few_shot": "auto" if self.suite.few_shot is None else self.suite.few_shot,
            "ask": self.suite.ask or "auto",
            "delta": list(self.deltas),
            "layers": "/".join(self.layer_sets),
            "phase": self.phase,
            "batch_size": self.batch_size or "auto",
            "token_budget": self.token_budget or "auto",
            "drafts": self.drafts,
            **{name: getattr(self.spec, name) for name in LOADING},
            "thinking": self.spec.thinking or "off",
            "thinking_tokens": self.generation.get("thinking_tokens", THINKING_TOKENS),
            "template": dict(self.spec.template),
            "date": None if self.spec.protocol else clock(self.spec.date)("%Y-%m-%d"),
            "misses": self.misses,
            "gate": self.gate,
            "allowed_drop": self.allowed_drop,
            "compare": self.compare[0] if self.compare else None,
            "engine": self.engine,
            "endpoint": self.endpoint.as_dict() if self.spec.protocol else None,
            "replay": self.replay.name if self.replay else None,
            "judge": self.judge.name if self.judge else None,
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


def _read(config: pytest.Config) -> Options:
    option = config.option
    start = config.invocation_params.dir
    if REPEAT in os.environ:
        vars(option).update(as_repeat())
    refuse_empty(option)
    settings = read_settings(settings_file(option.llmprobe_config, start, config.rootpath))
    models = settings.get("models", {})
    storage = (start / option.llmprobe_storage).resolve()
    replay = find_answers(given, start, storage) if (given := option.llmprobe_replay) else None
    if (held := config.stash.get(HELD, None)) is not None:
        model, spec = held.spec.name, read_spec(option, held.spec, start)
        counter = held.counter(spec)
    else:
        said = model_said(config, replay)
        model = canonical_name(said, registered(models), storage.parent)
        spec = read_spec(option, resolve(said, models), start)
        counter = counter_of(spec, models)
    report = _path(start, option.llmprobe_json)
    check_calibration(option)
    options = Options(
        model=model,
        spec=spec,
        suite=Suite(
            option.llmprobe_profile,
            option.llmprobe_seed,
            option.llmprobe_trials,
            read_datasets(option.llmprobe_dataset, start),
            counter=counter,
            chats=None if spec.protocol is None else not spec.completions,
            few_shot=option.llmprobe_few_shot,
            ask=option.llmprobe_ask,
            answer_room=option.llmprobe_max_new_tokens or AnswerRoom(),
        ),
        limit=option.llmprobe_limit,
        batch_size=option.llmprobe_batch_size,
        token_budget=option.llmprobe_token_budget,
        drafts=not option.llmprobe_no_drafts,
        misses=option.llmprobe_misses,
        gate=option.llmprobe_gate or "all",
        storage=storage,
        report=report,
        html=_path(start, option.llmprobe_html),
        markdown=_path(start, option.llmprobe_md),
        save=baseline_path(storage, model, option.llmprobe_save) if option.llmprobe_save else None,
        compare=compared_run(config, storage, model),
        resume=resumed_run(config, storage, model, report),
        replay=replay,
        calibrate=option.llmprobe_calibrate,
        allowed_drop=option.llmprobe_allowed_drop,
        self_check=read_self_check(option, spec),
        deltas=option.llmprobe_delta,
        layers=option.llmprobe_layers,
        phase=option.llmprobe_phase,
        engine=read_engine(option, spec),
        endpoint=read_endpoint(option),
        require=read_require(option),
        gates=read_gates(settings, model, storage.parent),
        generation=read_generation(option),
        fidelity=option.llmprobe_fidelity,
        texts=read_texts(option.llmprobe_fidelity, start),
        full=option.llmprobe_save_logits == "full",
        judge=resolve(option.llmprobe_judge, models) if option.llmprobe_judge else None,
        tokenizer_of=tokenizer_spec(spec, models),
    )
    if spec.protocol is None and replay is None:
        check_layers(options.layers, counter)
    if replay is not None:
        check_same_cases(replay, options.as_dict())
        check_same_model(replay, option, spec, models)
    return options


def _path(start: Path, given: str | None) -> Path | None:
    return (start / given).resolve() if given else None
