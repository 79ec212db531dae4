"""Records: built where a test ran, gathered where reports arrive, judged when the run ends."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import pytest

from pytest_llmprobe.collection import PLAN, PROBE, case_of
from pytest_llmprobe.distribution import SCRATCH_INPUT, scratch_folder, shared_plan
from pytest_llmprobe.fixtures import MODEL_INFO, TRACE, Trace, explained
from pytest_llmprobe.options import options_of
from pytest_llmprobe.progress import SHOW_INPUT, WorkersProgress, shows_progress
from pytest_llmprobe.report.environment import commit, environment
from pytest_llmprobe.report.files import (
    RecordLog,
    RunFiles,
    open_run,
    to_json,
    write_atomically,
)
from pytest_llmprobe.report.gate import Check, judge, run_verdict
from pytest_llmprobe.report.plan import Plan
from pytest_llmprobe.report.record import Outcome, Record, build_record
from pytest_llmprobe.report.schema import SCHEMA_VERSION
from pytest_llmprobe.report.terminal import printable, remarks, table

PROPERTY = "llmprobe"
MISSED = "llmprobe_missed"


def attach_record(
    item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport
) -> pytest.TestReport:
    """Put the record of a finished test on its report, and turn a miss into no failure.

    Only built-in types travel: one JSON string.
    """
    if PROBE not in item.stash or (call.when != "call" and report.outcome == "passed"):
        return report
    trace = item.stash.setdefault(TRACE, Trace())
    options = options_of(item.config)
    error = call.excinfo.value if call.excinfo is not None else None
    if call.when == "call" and isinstance(error, AssertionError) and report.outcome == "failed":
        trace.miss = explanation(error)
        if options.misses == "count":
            report.outcome, report.longrepr = "passed", None
    outcome = _outcome(call.when, report, trace, error)
    if outcome == "missed":
        setattr(report, MISSED, True)
    payload: dict[str, Any] = {
        "record": build_record(
            item.nodeid,
            item.stash[PROBE].experiment,
            outcome,
            case_of(item) if isinstance(item, pytest.Function) else None,
            trace.completions,
            trace.scores,
            explanation=_why(outcome, report, trace),
            error=explained(error) if outcome == "error" and error is not None else None,
        ).as_dict()
    }
    if info := item.config.stash.get(MODEL_INFO, None):
        payload["model_info"] = info
        item.config.stash[MODEL_INFO] = {}
    report.user_properties.append((PROPERTY, to_json(payload)))
    return report


def _outcome(
    when: str, report: pytest.TestReport, trace: Trace, error: BaseException | None
) -> Outcome:
    if report.outcome == "skipped":
        return "skipped"
    if when != "call" or (error is not None and not isinstance(error, AssertionError)):
        return "error"
    return "missed" if trace.miss is not None else "passed"


def _why(outcome: Outcome, report: pytest.TestReport, trace: Trace) -> str | None:
    if outcome == "skipped" and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    return trace.miss


def explanation(error: AssertionError) -> str:
    """The words of a failed assertion, without pytest's picture of the compared values."""
    text = str(error)
    words = text.partition("\nassert ")[0]
    return words.strip() or "the assertion failed"


def test_status(report: pytest.TestReport) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    """How a miss looks in the terminal."""
    if getattr(report, MISSED, False) and report.when == "call" and report.outcome == "passed":
        return "missed", "m", ("MISSED", {"yellow": True})
    return None


class Recorder:
    """In the only process or the controller: keeps records, judges, writes the report.

    Args:
        config: The session's config.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.started = datetime.now(timezone.utc)
        self.clock = time.perf_counter()
        self.records: dict[str, Record] = {}
        self.model_info: dict[str, Any] = {}
        self.failures: set[str] = set()
        self.checks: list[Check] = []
        self.experiments: list[dict[str, Any]] = []
        self.files: RunFiles | None = None
        self.session: pytest.Session | None = None
        self._log: RecordLog | None = None
        self._progress: WorkersProgress | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where to leave its plan and whether anybody watches its progress."""
        show = shows_progress(self.config)
        node.workerinput[SCRATCH_INPUT] = str(scratch_folder(self.config))
        node.workerinput[SHOW_INPUT] = show
        if show and self._progress is None:
            self._progress = WorkersProgress(self.config)
            self._progress.start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the record that a report carries; a crashed test carries none."""
        if report.failed:
            self.failures.add(report.nodeid)
        for key, value in report.user_properties:
            if key == PROPERTY:
                self._keep(json.loads(str(value)))
        if report.when == "???":  # how xdist reports the test that its worker died in
            self._crashed(report)

    def _crashed(self, report: pytest.TestReport) -> None:
        for experiment in self.plan().values():
            if report.nodeid in experiment.ids:
                error = str(report.longrepr) or "the worker died"
                record = build_record(
                    report.nodeid, experiment.name, "error", None, (), {}, error=error
                )
                self._keep({"record": record.as_dict()})

    def _keep(self, payload: Mapping[str, Any]) -> None:
        record = Record.from_dict(payload["record"])
        if self.records.get(record.id) == record:
            return
        self.model_info = self.model_info or dict(payload.get("model_info", {}))
        self.records[record.id] = record
        if self._log is None:
            self.files = self._open()
            self._log = RecordLog(self.files.records, self.header())
        self._log.append(record.as_dict())

    def _open(self) -> RunFiles:
        options = options_of(self.config)
        return open_run(options.storage, options.model, options.report, self.started)

    def plan(self) -> Plan:
        """What was to run: collected here, or left by the workers."""
        own = self.config.stash.get(PLAN, None)
        return own if own is not None else shared_plan(self.config)

    def header(self) -> dict[str, Any]:
        """What is known of the run before its first result."""
        options = options_of(self.config)
        return {
            "schema_version": SCHEMA_VERSION,
            "model": options.model,
            "timestamp": self.started.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "config": options.as_dict(),
            "commit": commit(self.config.rootpath),
        }

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Judge, raise the exit code if a gate failed, write the report."""
        self.session = session
        if self._progress is not None:
            self._progress.stop()
        plan = self.plan()
        shutil.rmtree(scratch_folder(self.config), ignore_errors=True)
        if not plan or self.config.option.collectonly:
            return
        self._summarise(plan)
        if session.exitstatus == 0 and any(check.verdict == "FAIL" for check in self.checks):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._log is not None:
            self._log.close()
        self.files = self.files or self._open()
        write_atomically(self.files.report, to_json(self.report(), indent=1) + "\n")

    def _summarise(self, plan: Plan) -> None:
        from pytest_llmprobe.report.summary import summarise  # its imports cost 10 ms

        for name in sorted(plan):
            records = [record for record in self.records.values() if record.experiment == name]
            self.experiments.append(summarise(plan[name], records))
        self.checks = judge(plan, self.experiments)
        for experiment in self.experiments:
            experiment["gate"] = [
                check.as_dict() for check in self.checks if check.experiment == experiment["name"]
            ]

    def verdict(self) -> tuple[str, str]:
        """The run's verdict and its reason, from what the process will exit with."""
        assert self.session is not None
        return run_verdict(self.checks, int(self.session.exitstatus), len(self.failures))

    def report(self) -> dict[str, Any]:
        """The whole report."""
        info = dict(self.model_info)
        accelerators = info.pop("accelerators", [])
        complete = all(e["reported"] == e["selected"] for e in self.experiments)
        verdict, reason = self.verdict()
        return self.header() | {
            "status": "complete" if complete else "interrupted",
            "environment": environment(accelerators),
            "model_info": info,
            "experiments": self.experiments,
            "gate": {
                "verdict": verdict,
                "reason": reason,
                "checks": [check.as_dict() for check in self.checks],
            },
            "timings": {
                "total_s": time.perf_counter() - self.clock,
                "generation_s": sum(e["timings"]["generation_s"] for e in self.experiments),
            },
            "tests": [self.records[node_id].as_dict() for node_id in sorted(self.records)],
        }

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table, where the report is, and the verdict."""
        if not self.experiments or self.files is None:
            return
        terminalreporter.section("llmprobe")
        for line in [*table(self.experiments, self.checks), *remarks(self.experiments)]:
            terminalreporter.write_line(line)
        verdict, reason = self.verdict()
        colour = {"PASS": "green", "FAIL": "red"}.get(verdict, "yellow")
        terminalreporter.write_line(f"report: {self.files.report}")
        terminalreporter.write_line(
            f"llmprobe: GATE {verdict} ({printable(reason)})", **{colour: True, "bold": True}
        )
