"""A finished run in MLflow or Weights & Biases: one function each, called by whoever wants it.

Nothing is sent anywhere unless these are called; where to is what those packages are told by
their own environment variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.report.html import html
from pytest_llmprobe.report.run_file import read_json
from pytest_llmprobe.report.schema import validate


def log_to_mlflow(report: Mapping[str, Any] | str | Path, run: Any = None) -> str:
    """Log a report to MLflow: rates and scores as metrics, options as parameters, the page.

    Args:
        report: A report, or the path of one.
        run: An active run of MLflow to log to; None: the active one, or else a new one.

    Returns:
        The id of MLflow's run.

    Raises:
        ReportError: mlflow is not installed, or this is no report.
    """
    try:
        import mlflow
    except ImportError:
        raise ReportError("log_to_mlflow needs mlflow: pip install mlflow") from None
    given = _report(report)
    active = run or mlflow.active_run()
    mine = active is None
    active = active or mlflow.start_run(run_name=_name(given))
    run_id: str = active.info.run_id
    try:
        client = mlflow.MlflowClient()
        for name, value in metrics(given).items():
            client.log_metric(run_id, _mlflow_name(name), value)
        for name, option in parameters(given).items():
            client.log_param(run_id, f"llmprobe.{name}", option)
        client.set_tag(run_id, "llmprobe.gate", given["gate"]["verdict"])
        client.set_tag(run_id, "llmprobe.reason", given["gate"]["reason"])
        client.log_dict(run_id, dict(given), "llmprobe/report.json")
        client.log_text(run_id, html(given), "llmprobe/report.html")
    finally:
        if mine:
            mlflow.end_run()
    return run_id


def log_to_wandb(report: Mapping[str, Any] | str | Path, run: Any = None) -> str:
    """Log a report to Weights & Biases: rates and scores in the summary, options, the page.

    Args:
        report: A report, or the path of one.
        run: A run of wandb to log to; None: the active one, or else a new one.

    Returns:
        The id of wandb's run.

    Raises:
        ReportError: wandb is not installed, or this is no report.
    """
    try:
        import wandb
    except ImportError:
        raise ReportError("log_to_wandb needs wandb: pip install wandb") from None
    given = _report(report)
    active = run or wandb.run
    mine = active is None
    active = active or wandb.init(name=_name(given), job_type="llmprobe")
    try:
        active.config.update({"llmprobe": parameters(given)}, allow_val_change=True)
        active.summary.update(metrics(given) | {"llmprobe/gate": given["gate"]["verdict"]})
        active.log({"llmprobe/report": wandb.Html(html(given), inject=False)})
    finally:
        if mine:
            active.finish()
    return str(active.id)


def metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a report by name: ``single_needle/pass_rate``, its interval, scores, speed."""
    found: dict[str, float] = {}
    for experiment in report["experiments"]:
        name = experiment["name"]
        low, high = experiment["ci95_clustered"] or (None, None)
        values: dict[str, float | None] = {
            "pass_rate": experiment["pass_rate"],
            "cases": experiment["n"],
            "pass_rate_low": low,
            "pass_rate_high": high,
            **{score: entry["mean"] for score, entry in experiment["scores"].items()},
        }
        found |= {f"{name}/{key}": float(v) for key, v in values.items() if v is not None}
    return found | {"total_s": float(report["timings"]["total_s"])}


def parameters(report: Mapping[str, Any]) -> dict[str, str]:
    """What was asked of which model, as short texts."""
    given = {"model": report["model"], **report["config"]}
    return {name: str(value)[:250] for name, value in given.items() if value not in (None, {}, [])}


def _name(report: Mapping[str, Any]) -> str:
    return f"{report['model']} {report['timestamp']}"


def _mlflow_name(name: str) -> str:
    """Letters that MLflow takes in a metric's name."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-./ ") else "_" for c in name)


def _report(given: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        report: Mapping[str, Any] = given
    else:
        path = Path(given)
        report = read_json(path / "report.json" if path.is_dir() else path)
    validate(report)
    return report
