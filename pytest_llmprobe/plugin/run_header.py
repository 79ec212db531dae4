"""What a run says before its first case: what is asked of which model, and what it may take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.engine.endpoints.address import address_of
from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.report.run_file import read_json
from pytest_llmprobe.report.terminal import printable

if TYPE_CHECKING:
    from pytest_llmprobe.models.registry import ModelSpec
    from pytest_llmprobe.plugin.options import Options
    from pytest_llmprobe.plugin.run import Run

NEWEST, LARGEST = 4, 32 * 2**20
"""Earlier reports that are looked at for their time, and most bytes of one."""


def header_lines(run: Run) -> list[str]:
    """The model and where it is, how it is loaded, and the cases."""
    options = run.options
    cases, experiments = sum(len(one.ids) for one in run.plan.values()), len(run.plan)
    counted = f"{_number(cases, 'case')} of {_number(experiments, 'experiment')}"
    said = f"profile {options.suite.profile}, seed {options.suite.seed}: {counted}"
    lines = [f"llmprobe: {_model(options)}", f"llmprobe: {said}{_last_time(options)}"]
    return [printable(line) for line in lines]


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _model(options: Options) -> str:
    spec = options.spec
    if options.replay is not None:
        return f"{options.model}, answers of {options.replay.name}"
    return f"{options.model}, {', '.join(_loaded(spec))}"


def _loaded(spec: ModelSpec) -> list[str]:
    if spec.protocol is not None:
        return [f"at {address_of(spec).url}"]
    place = "embedded" if spec.embedded else spec.source
    if spec.revision is not None:
        place = f"{place}@{spec.revision}"
    said = [] if place == spec.name else [place]
    said += [f"dtype {spec.dtype}", f"device {spec.device_map or spec.device}"]
    named = {"quantization": spec.quantization, "adapter": spec.adapter}
    return said + [f"{name} {value}" for name, value in named.items() if value is not None]


def _last_time(options: Options) -> str:
    """What the newest whole run of this model and profile took, if there is one."""
    if options.replay is not None:
        return ""
    runs = sorted(options.storage.glob("runs/*/report.json"), reverse=True)
    for report in map(_read, runs[:NEWEST]):
        config, timings = report.get("config"), report.get("timings")
        if report.get("model") != options.model or report.get("status") != "complete":
            continue
        if isinstance(config, dict) and config.get("profile") == options.suite.profile:
            seconds = timings.get("total_s") if isinstance(timings, dict) else None
            tests = report.get("tests")
            if isinstance(seconds, int | float) and isinstance(tests, list):
                return f" (the last run took {seconds:,.0f} s for {len(tests):,})"
    return ""


def _read(path: Path) -> Mapping[str, Any]:
    """A report of before, or nothing where it is damaged, foreign or long."""
    try:
        return read_json(path) if path.stat().st_size <= LARGEST else {}
    except (OSError, ReportError):
        return {}
