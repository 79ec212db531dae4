"""A baseline: a report reduced to what a comparison needs, small enough to commit."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import stdev
from typing import Any

from pytest_llmprobe.errors import ReportError, SettingsError
from pytest_llmprobe.report.files import write_atomically
from pytest_llmprobe.report.record import Outcome

BASELINE_VERSION = "1.0"
KIND = "llmprobe baseline"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


@dataclass(frozen=True)
class CaseResult:
    """One case's result, as far as another run is compared with it."""

    id: str
    experiment: str
    outcome: Outcome
    group: str | None = None
    shares_prefix: bool | None = None
    prompt_hash: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    received: str | None = None
    duration: float = 0.0
    batch_size: int | None = None

    @property
    def judged(self) -> bool:
        """Whether it passed or missed; otherwise it could not be measured."""
        return self.outcome in ("passed", "missed")

    @property
    def cluster(self) -> str:
        """What makes cases dependent: the shared haystack, else the same prompt.

        Where prompts were not measured, as in older files, a group counts as a haystack.
        """
        group = None if self.shares_prefix is False else self.group
        return group or self.prompt_hash or self.id


@dataclass(frozen=True)
class Baseline:
    """A run, reduced; what is not said here is as in the report (docs/report.md).

    Args:
        experiments: By name: counts, pass rate, timings; ``generation`` if the report has it.
        cases: By id, in order.
        noise: By experiment: standard deviation of the pass rate from run to run.
    """

    model: str
    timestamp: str
    status: str
    commit: Mapping[str, Any] | None
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    model_info: Mapping[str, Any]
    experiments: Mapping[str, Mapping[str, Any]]
    cases: Mapping[str, CaseResult]
    noise: Mapping[str, float] = field(default_factory=dict)


def with_noise(baseline: Baseline, repeats: Sequence[Baseline]) -> Baseline:
    """The baseline with the noise between it and repeated runs of the same configuration.

    The noise of an experiment is the standard deviation of their pass rates, which more repeats
    make more certain and not larger.
    """
    noise = {}
    for name in baseline.experiments:
        rates = [
            run.experiments[name]["pass_rate"]
            for run in (baseline, *repeats)
            if name in run.experiments and run.experiments[name]["pass_rate"] is not None
        ]
        if len(rates) > 1:
            noise[name] = stdev(rates)
    return replace(baseline, noise=noise)


def baseline_folder(storage: Path, model: str) -> Path:
    """Where a model's baselines are: a folder name of its own for every model name."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.")[:80]
    if name != model or not name:
        digest = hashlib.sha256(model.encode(errors="surrogatepass")).hexdigest()[:8]
        name = f"{name or 'model'}-{digest}"
    return storage / "baselines" / name


def baseline_path(storage: Path, model: str, name: str) -> Path:
    """The file of a baseline.

    Raises:
        SettingsError: The name is no plain file name.
    """
    if not re.fullmatch(NAME, name):
        raise SettingsError(
            f"{name!r} cannot name a baseline: use letters, digits, '.', '_' and '-', at most 100"
        )
    return baseline_folder(storage, model) / f"{name}.json"


def write_baseline(baseline: Baseline, path: Path) -> None:
    """Write the whole file or none: JSON with a line for each case, sorted, so that git diffs read.

    Raises:
        ReportError: It cannot be written there.
    """
    head = vars(baseline) | {"kind": KIND, "schema_version": BASELINE_VERSION}
    cases = head.pop("cases")
    lines = [
        _compact({key: value for key, value in asdict(cases[name]).items() if _says(value)})
        for name in sorted(cases)
    ]
    keys = [f"{_compact(key)}: {_compact(head[key])}" for key in sorted(head)]
    text = "{\n" + ",\n".join(keys) + ',\n"cases": [\n' + ",\n".join(lines) + "\n]}\n"
    try:
        write_atomically(path, text)
    except OSError as error:
        raise ReportError(f"the baseline {path} cannot be written: {error.strerror}") from None


def _says(value: object) -> bool:
    """Whether it is more than what a field has if it is left out; False is, though equal to 0."""
    return value is False or value not in (None, {}, 0.0)


def _compact(data: object) -> str:
    return json.dumps(data, sort_keys=True, allow_nan=False, separators=(",", ":"))
