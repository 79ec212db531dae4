"""Records: built where a test ran, gathered where reports arrive, judged when the run ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_llmprobe.errors import LlmprobeError, ReportError
from pytest_llmprobe.plugin.asking import MODEL_INFO, Trace, forget_trace, trace_of
from pytest_llmprobe.plugin.collection import PROBE, case_of
from pytest_llmprobe.plugin.distribution import MISSED, PROPERTY, plan_of, started_at
from pytest_llmprobe.plugin.engines import NOT_ASKED
from pytest_llmprobe.plugin.options import options_of
from pytest_llmprobe.plugin.other_reporters import properties, wanted
from pytest_llmprobe.plugin.run_folder import header, model_changes, run_files
from pytest_llmprobe.plugin.self_check_once import checked, said_of_check
from pytest_llmprobe.report.baseline import Baseline
from pytest_llmprobe.report.comparison import Comparison, compare
from pytest_llmprobe.report.comparison_text import lines as compared_lines
from pytest_llmprobe.report.environment import environment
from pytest_llmprobe.report.files import RecordLog, report_text, to_json, write_atomically
from pytest_llmprobe.report.gate import Check, judge, run_verdict
from pytest_llmprobe.report.record import Outcome, Record, build_record, explained
from pytest_llmprobe.report.run_file import read_run, reduce_report
from pytest_llmprobe.report.self_check_text import self_check_warning
from pytest_llmprobe.report.terminal import failed_summaries, printable, remarks, summaries, table


def attach_record(
    item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport
) -> None:
    """Put the record of a finished test on its report, and turn a miss into no failure.

    Only built-in types travel: one JSON string.
    """
    if PROBE not in item.stash:
        return
    if call.when != "call" and report.outcome == "passed":
        if call.when == "teardown":
            forget_trace(item)
        return
    if item.stash.get(NOT_ASKED, False):  # the run goes no further; a later one may ask it
        return
    trace = trace_of(item)
    options = options_of(item.config)
    error = call.excinfo.value if call.excinfo is not None else None
    if call.when == "call" and isinstance(error, AssertionError) and report.outcome == "failed":
        trace.miss = explanation(error)
        if options.misses == "count":
            report.outcome, report.longrepr = "passed", None
            call.excinfo = None  # or --pdb would stop at it
    outcome = _outcome(call.when, report, trace, error)
    if outcome == "error" and isinstance(error, LlmprobeError):
        report.longrepr = str(error)  # says what to do; a traceback of our code would not
    if outcome == "missed":
        setattr(report, MISSED, True)
    record = build_record(
        item.nodeid,
        item.stash[PROBE].experiment,
        outcome,
        case_of(item) if isinstance(item, pytest.Function) else None,
        trace.completions,
        trace.scores,
        explanation=_why(outcome, report, trace),
        error=explained(error) if outcome == "error" and error is not None else None,
        prompt_characters=trace.prompt_characters,
        details=trace.details,
    )
    payload: dict[str, Any] = {"record": record.as_dict()}
    if options.resume or options.replay:
        payload["answers"] = len(trace.completions)
        payload["found"] = sum(completion.recorded for completion in trace.completions)
    if info := item.config.stash.get(MODEL_INFO, None):
        payload["model_info"] = info
        payload["changes"] = model_changes(item.config)
        item.config.stash[MODEL_INFO] = {}
    report.user_properties.append((PROPERTY, to_json(payload)))
    if wanted(item.config):
        shown = list(properties(record))
        item.user_properties += shown  # JUnit XML takes those of the report on the teardown
        report.user_properties += shown


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


def _from_here(path: Path, config: pytest.Config) -> Path:
    start = config.invocation_params.dir
    return path.relative_to(start) if path.is_relative_to(start) else path


class Recorder:
    """In the only process or the controller: keeps records, judges, writes the report.

    Args:
        config: The session's config.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._options = options_of(config)
        self._header = header(config)
        self._model_info: dict[str, Any] = {}
        self._log: RecordLog | None = None
        self._session: pytest.Session | None = None
        self._experiments: list[dict[str, Any]] = []
        self._checks: list[Check] = []
        self._comparison: Comparison | None = None
        self._said: list[str] = []
        self._repeats: list[Baseline] = []
        self._faults: list[str] = []
        self._answers = self._found = 0
        self._changes: list[str] = []
        self._self_check: dict[str, Any] | None = None

    def keep(self, carried: str) -> None:
        """Keep the record that a report carried; a later one of the same test replaces it."""
        payload = json.loads(carried)
        self._answers += payload.get("answers", 0)
        self._found += payload.get("found", 0)
        self._changes = payload.get("changes") or self._changes
        self._model_info = self._model_info or payload.get("model_info", {})
        self._append(payload["record"])

    def crashed(self, node_id: str, error: str) -> None:
        """Record the case that a worker died on: it has no report of its own."""
        for experiment in plan_of(self._config).values():
            if node_id in experiment.ids:
                name = experiment.name
                record = build_record(node_id, name, "error", None, (), {}, error=error)
                self._append(record.as_dict())

    def _append(self, record: Mapping[str, Any]) -> None:
        if self._log is None:
            self._log = RecordLog(run_files(self._config).records, self._header)
            self._config.add_cleanup(self._log.close)
        self._log.append(record)

    def finish(self, session: pytest.Session) -> None:
        """Judge, raise the exit code if a gate failed, write the report."""
        from pytest_llmprobe.report.summary import summarise

        self._session = session
        plan = plan_of(self._config)
        self._experiments = [
            summarise(plan[name], self._records_of(plan[name].ids)) for name in sorted(plan)
        ]
        self._checks = judge(plan, self._experiments)
        self._self_check = checked(self._config)
        measured = self._measured()
        self._compare(measured)
        self._calibrate(measured)
        failed = any(check.verdict == "FAIL" for check in self._checks)
        if session.exitstatus == 0 and (failed or self._all_faults()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        report = self._report(measured)
        write_atomically(run_files(self._config).report, report_text(report))
        self._said = self._write_forms(report)

    def _records_of(self, ids: Iterable[str]) -> Iterator[Record]:
        return map(Record.from_dict, self._log.read(ids) if self._log is not None else ())

    def _write_forms(self, report: Mapping[str, Any]) -> list[str]:
        from pytest_llmprobe.report.publish import publish

        options = self._options
        return publish(
            report,
            self._comparison,
            page=options.html,
            text=options.markdown,
            baseline=options.save,
            repeats=self._repeats,
        )

    def _verdict(self) -> tuple[str, str]:
        """The run's verdict and its reason, from what the process will exit with."""
        assert self._session is not None
        return run_verdict(
            self._checks,
            int(self._session.exitstatus),
            self._session.testsfailed,
            self._all_faults(),
        )

    def _all_faults(self) -> list[str]:
        """What fails the run beside its tests and gates."""
        return [*failed_summaries(self._experiments), *self._faults]

    def _compare(self, measured: Mapping[str, Any]) -> None:
        """Compare with the run that the user named; its findings are checks if the gate says so."""
        if self._options.compare is None:
            return
        name, path = self._options.compare
        self._comparison = compare(read_run(path), reduce_report(measured), (name, "this run"))
        if self._options.gate in ("all", "baseline"):
            self._checks += self._comparison.checks

    def _calibrate(self, measured: Mapping[str, Any]) -> None:
        """Measure the baseline's noise if the user asked for it and the run is whole."""
        times = self._options.calibrate
        if not times or measured["status"] != "complete":
            return
        from pytest_llmprobe.plugin.calibration import repeats

        try:
            self._repeats = repeats(self._config, times, run_files(self._config).report.parent)
        except ReportError as error:
            self._faults.append(f"the noise was not measured: {error}")

    def _measured(self) -> dict[str, Any]:
        """The report without verdicts."""
        info = dict(self._model_info)
        accelerators = info.pop("accelerators", [])
        complete = all(e["reported"] == e["selected"] for e in self._experiments)
        return self._header | {
            "status": "complete" if complete else "interrupted",
            "environment": environment(accelerators),
            "model_info": info,
            "experiments": self._experiments,
            "timings": {
                "total_s": time.time() - started_at(self._config),
                "generation_s": sum(e["timings"]["generation_s"] for e in self._experiments),
            },
            "self_check": self._self_check,
            "tests": self._log or [],
        }

    def _report(self, measured: Mapping[str, Any]) -> dict[str, Any]:
        verdict, reason = self._verdict()
        checks = [check.as_dict() for check in self._checks]
        return {
            **measured,
            "experiments": [
                experiment | {"gate": [c for c in checks if c["experiment"] == experiment["name"]]}
                for experiment in self._experiments
            ],
            "gate": {"verdict": verdict, "reason": reason, "checks": checks},
            "comparison": self._comparison.as_dict() if self._comparison else None,
        }

    def _gone_on(self) -> list[str]:
        """How much of an earlier run could be used, and what has changed since."""
        earlier = self._options.resume or self._options.replay
        if earlier is None:
            return []
        said = f"{earlier.name}: {self._found} of {self._answers} answers were there"
        return [said, *(f"  the model is not as it was: {change}" for change in self._changes)]

    def print_summary(self, terminal: pytest.TerminalReporter) -> None:
        """The table, where the report is, and the verdict."""
        if self._session is None:
            return
        terminal.section("llmprobe")
        for line in (
            *table(self._experiments, self._checks),
            *summaries(self._experiments),
            *remarks(self._experiments),
            *(compared_lines(self._comparison) if self._comparison else ()),
            *self._said,
            *self._gone_on(),
            *said_of_check(self._config, self._self_check),
        ):
            terminal.write_line(line)
        if warning := self_check_warning(self._self_check):
            terminal.write_line(warning, yellow=True, bold=True)
        verdict, reason = self._verdict()
        colour = {"PASS": "green", "FAIL": "red"}.get(verdict, "yellow")
        terminal.write_line(f"report: {_from_here(run_files(self._config).report, self._config)}")
        terminal.write_line(
            f"llmprobe: GATE {verdict} ({printable(reason)})", **{colour: True, "bold": True}
        )
