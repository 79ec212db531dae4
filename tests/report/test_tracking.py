"""A run in MLflow and Weights & Biases: what is logged, and that their runs are left as they were.

The packages are stood in for by what records the calls; docs/LOG.md says when they were tried
themselves.
"""

import json
import sys
from types import SimpleNamespace

import pytest
from some_reports import records, report

from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.report.tracking import log_to_mlflow, log_to_wandb, metrics


def some():
    return report(records("ppm", scores={"recall": 0.5}), records("p", experiment="café"))


class Calls(list):
    """Any method, noted with its arguments."""

    def __getattr__(self, name):
        return lambda *args, **more: self.append((name, args))


@pytest.fixture
def mlflow(monkeypatch):
    calls = Calls()
    run = SimpleNamespace(info=SimpleNamespace(run_id="run-1"))
    fake = SimpleNamespace(
        calls=calls,
        run=run,
        active_run=lambda: None,
        start_run=lambda run_name: calls.append(("start", run_name)) or run,
        end_run=lambda: calls.append(("end", ())),
        MlflowClient=lambda: calls,
    )
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


def test_rates_scores_and_intervals_are_metrics():
    found = metrics(some())
    assert found["needle/pass_rate"] == pytest.approx(2 / 3)
    assert found["needle/pass_rate_low"] < found["needle/pass_rate"]
    assert found["needle/recall"] == 0.5
    assert found["needle/cases"] == 3
    assert found["total_s"] == 10


def test_mlflow_gets_metrics_options_verdict_and_page(mlflow, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(some()))
    assert log_to_mlflow(path) == log_to_mlflow(tmp_path) == "run-1"
    calls = mlflow.calls[: len(mlflow.calls) // 2]
    assert calls[0] == ("start", "org/model 2026-03-01T12:00:00Z")
    assert ("log_metric", ("run-1", "caf_/pass_rate", 1.0)) in calls
    assert ("log_param", ("run-1", "llmprobe.profile", "ci")) in calls
    assert ("set_tag", ("run-1", "llmprobe.gate", "NOT JUDGED")) in calls
    pages = [args for name, args in calls if name == "log_text"]
    assert pages[0][1].startswith("<!doctype html>")
    assert calls[-1] == ("end", ())


def test_a_run_of_mlflow_that_is_under_way_goes_on(mlflow):
    mlflow.active_run = lambda: mlflow.run
    log_to_mlflow(some())
    assert not any(name in ("start", "end") for name, _ in mlflow.calls)


@pytest.mark.parametrize("active", [True, False])
def test_wandb_gets_the_same_in_its_summary(monkeypatch, active):
    run = SimpleNamespace(
        id="w1", config={}, summary={}, logged=[], finished=[], log=lambda d: run.logged.append(d)
    )
    run.config = SimpleNamespace(update=lambda d, allow_val_change: run.logged.append(d))
    run.finish = lambda: run.finished.append(True)
    fake = SimpleNamespace(
        run=run if active else None, init=lambda **_: run, Html=lambda text, inject: text
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    assert log_to_wandb(some()) == "w1"
    assert run.summary["needle/pass_rate"] == pytest.approx(2 / 3)
    assert run.summary["llmprobe/gate"] == "NOT JUDGED"
    assert run.logged[0]["llmprobe"]["model"] == "org/model"
    assert run.logged[1]["llmprobe/report"].startswith("<!doctype html>")
    assert bool(run.finished) is not active


@pytest.mark.parametrize(("log", "name"), [(log_to_mlflow, "mlflow"), (log_to_wandb, "wandb")])
def test_an_absent_package_is_named(monkeypatch, log, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ReportError, match=f"pip install {name}"):
        log(some())


def test_what_is_no_report_is_refused(mlflow):
    with pytest.raises(ReportError, match="does not follow its schema"):
        log_to_mlflow({"model": "m"})
    assert not mlflow.calls
