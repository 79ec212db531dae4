"""Reports and baselines as a comparison reads them: each field checked, whoever wrote the file."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from pytest_llmprobe.errors import ReportError, SettingsError
from pytest_llmprobe.report.baseline import (
    BASELINE_VERSION,
    KIND,
    Baseline,
    CaseResult,
)
from pytest_llmprobe.report.files import RecordLog
from pytest_llmprobe.report.plan import Bar
from pytest_llmprobe.report.record import MAX_TEXT, Outcome, bounded
from pytest_llmprobe.report.schema import SCHEMA_VERSION

MAX_ANSWER = 160
"""Characters of an answer that a comparison keeps."""

HUGE = 1e300
"""Numbers from here on, infinite ones and NaN are no measurements."""

CONFLICT = re.compile(r"^(<<<<<<<|>>>>>>>)", re.MULTILINE)
"""What git leaves in a file that two branches changed."""

EXPERIMENT_FIELDS = ("collected", "errors", "n", "pass_rate", "reported", "skipped", "timings")
LATER_FIELDS = ("against_baseline", "allowed_drop", "ci95_clustered", "generation", "judged")
"""Fields of an experiment that older reports do not have."""


def read_run(path: Path) -> Baseline:
    """A baseline, a report, or a run's folder, reduced to what a comparison needs.

    Raises:
        ReportError: It cannot be read or is neither.
    """
    file = path / "report.json" if path.is_dir() else path
    data = read_json(file)
    try:
        return _read_baseline(data) if data.get("kind") == KIND else reduce_report(data)
    except ReportError as error:
        raise ReportError(f"{file}: {error}") from None


def reduce_report(report: Mapping[str, Any]) -> Baseline:
    """What a comparison needs of a report.

    Raises:
        ReportError: It is no report; names what is missing or wrong.
    """
    version = report.get("schema_version", SCHEMA_VERSION)
    if str(version).partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise ReportError(f"it is a report of schema {version!r}, and this reads {SCHEMA_VERSION}")
    header = _header(report)
    experiments = {
        name: {k: v for k, v in experiment.items() if k in (*EXPERIMENT_FIELDS, *LATER_FIELDS)}
        for name, experiment in _experiments(report).items()
    }
    cases = [_case(test, n, MAX_ANSWER) for n, test in enumerate(_list(report, "tests"), 1)]
    return Baseline(**header, experiments=_checked(experiments), cases=_by_id(cases))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ReportError: There is no such file, or it holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text, parse_constant=_no_constant)
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        if not isinstance(error, UnicodeDecodeError) and CONFLICT.search(text):
            raise ReportError(
                f"{path} holds a merge conflict of git: settle it, or save the baseline again"
            ) from None
        raise ReportError(f"{path} cannot be read: it is no JSON ({error})") from None
    if not isinstance(data, dict):
        raise ReportError(f"{path} is no report and no baseline: it holds no JSON object")
    return data


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _read_baseline(data: Mapping[str, Any]) -> Baseline:
    if data.get("schema_version") != BASELINE_VERSION:
        raise ReportError(
            f"it is a baseline of format {data.get('schema_version')!r}, and this version reads "
            f"{BASELINE_VERSION!r}: save it again"
        )
    cases = [_case(case, n, MAX_TEXT) for n, case in enumerate(_list(data, "cases"), 1)]
    experiments = _checked(_object(data, "experiments"))
    noise = _numbers(data.get("noise", {}), "noise")
    by_id = _by_id(cases)
    held = Counter(case.experiment for case in cases)
    for name, experiment in experiments.items():
        if held[name] != experiment["reported"]:
            raise ReportError(
                f"it tells of {experiment['reported']} cases of {bounded(name, 200)} and holds "
                f"{held[name]}: part of it is lost; save it again"
            )
    return Baseline(**_header(data), experiments=experiments, cases=by_id, noise=noise)


def _header(data: Mapping[str, Any]) -> dict[str, Any]:
    """What reports and baselines have in common."""
    header: dict[str, Any] = {key: data.get(key) for key in ("model", "timestamp", "status")}
    for key, value in header.items():
        if not isinstance(value, str):
            raise ReportError(f"it is no report and no baseline: it has no {key!r}")
    for key in ("config", "environment", "model_info"):
        header[key] = _object(data, key)
    header["commit"] = _object(data, "commit") if data.get("commit") is not None else None
    return header


def _object(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(found := data.get(key), dict):
        raise ReportError(f"it is no report and no baseline: {key!r} is no object")
    return found


def _list(data: Mapping[str, Any], key: str) -> Iterable[Any]:
    if not isinstance(found := data.get(key), list | RecordLog):
        raise ReportError(f"it is no report and no baseline: {key!r} is no list")
    return found


def _experiments(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found = {}
    for experiment in _list(report, "experiments"):
        if not isinstance(experiment, dict) or not isinstance(experiment.get("name"), str):
            raise ReportError("it is no report: an experiment has no name")
        found[experiment["name"]] = experiment
    return found


def _checked(experiments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    for name, experiment in experiments.items():
        for key in EXPERIMENT_FIELDS:
            if not isinstance(experiment, dict) or key not in experiment:
                raise ReportError(f"the experiment {name!r} has no {key!r}")
        values = {key: experiment[key] for key in EXPERIMENT_FIELDS}
        if experiment.get("allowed_drop") is not None:
            values["allowed_drop"] = experiment["allowed_drop"]
        _check_limits(name, experiment.get("against_baseline"))
        if not isinstance(timings := values.pop("timings"), dict):
            raise ReportError(f"the experiment {name!r} has no timings")
        known = {k: value for k, value in (values | timings).items() if value is not None}
        _numbers(known, f"the experiment {bounded(name, 200)!r}")
    return dict(experiments)


def _check_limits(name: str, given: object) -> None:
    """Refuse what a comparison could not hold an experiment to."""
    limits = {} if given is None else given
    try:
        if not isinstance(limits, dict):
            raise SettingsError("give a table")
        if limits.get("recovery") is not None:
            Bar(recovery=limits["recovery"])
        if limits.get("score"):
            Bar(score=limits["score"])
    except SettingsError as error:
        where = f"the experiment {bounded(name, 200)!r}"
        raise ReportError(f"{where} has an impossible 'against_baseline': {error}") from None


def _case(data: object, number: int, longest: int) -> CaseResult:
    """One case of a baseline or one test of a report."""
    where = f"case {number}"
    if not isinstance(data, dict):
        raise ReportError(f"{where} is no object")
    for key in ("id", "experiment", "outcome"):
        if not isinstance(data.get(key), str):
            raise ReportError(f"{where} has no {key!r}")
    where = f"case {bounded(data['id'], 200)!r}"
    if data["outcome"] not in get_args(Outcome):
        raise ReportError(f"{where} has the unknown outcome {bounded(data['outcome'], 20)!r}")
    for key in ("group", "prompt_hash", "received"):
        if not isinstance(data.get(key), str | None):
            raise ReportError(f"{where} has a {key!r} that is no text")
    if not isinstance(data.get("shares_prefix"), bool | None):
        raise ReportError(f"{where} has a 'shares_prefix' that is neither true nor false")
    numbers = {key: data[key] for key in ("duration", "batch_size") if data.get(key) is not None}
    _numbers(numbers, where)
    known = {f.name: data[f.name] for f in fields(CaseResult) if f.name in data}
    return CaseResult(
        **known
        | {
            "scores": _numbers(data.get("scores", {}), where),
            "received": bounded(data.get("received"), longest),
            "duration": float(f"{numbers.get('duration', 0.0):.4g}"),  # no one compares more
        }
    )


def _numbers(data: object, where: str) -> dict[str, float]:
    if not isinstance(data, dict):
        raise ReportError(f"{where}: numbers by name were expected")
    for name, value in data.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < HUGE:
            raise ReportError(f"{where} has a {bounded(name, 50)!r} that is no number")
    return data


def _by_id(cases: Sequence[CaseResult]) -> dict[str, CaseResult]:
    by_id: dict[str, CaseResult] = {}
    for case in cases:
        if by_id.setdefault(case.id, case) is not case:
            raise ReportError(f"the case {bounded(case.id, 200)!r} is there twice")
    return {case_id: by_id[case_id] for case_id in sorted(by_id)}
