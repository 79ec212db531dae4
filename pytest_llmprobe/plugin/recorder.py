"""Records where reports arrive: kept one by one, judged and written when the run ends."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.plugin import said_at_end
from pytest_llmprobe.plugin.ending import ENDED, MACHINE_FAILED, end_run, unwritten
from pytest_llmprobe.plugin.other_reporters import add_gates
from pytest_llmprobe.plugin.run import Run
from pytest_llmprobe.report import misses_text
from pytest_llmprobe.report.baseline import Baseline
from pytest_llmprobe.report.check import Check
from pytest_llmprobe.report.environment import environment
from pytest_llmprobe.report.fidelity_bars import METRICS
from pytest_llmprobe.report.fidelity_text import fidelity_lines, texts_lines
from pytest_llmprobe.report.files import RecordLog, report_text, write_atomically
from pytest_llmprobe.report.gate import judge, lost_to_errors, run_verdict
from pytest_llmprobe.report.record import Record, build_record
from pytest_llmprobe.report.self_check_text import self_check_warning
from pytest_llmprobe.report.server_text import server_lines
from pytest_llmprobe.report.terminal import failed_summaries, printable, remarks, summaries, table
from pytest_llmprobe.report.weights_text import weights_lines

if TYPE_CHECKING:
    from pytest_llmprobe.report.comparison import Comparison


def _from_here(path: Path, config: pytest.Config) -> Path:
    start = config.invocation_params.dir
    return path.relative_to(start) if path.is_relative_to(start) else path


class Recorder:
    """In the only process or the controller: keeps records, judges, writes the report.

    Args:
        run: What the session knows.
        config: The session's config.
    """

    def __init__(self, run: Run, config: pytest.Config) -> None:
        self._run, self._config = run, config
        self._options = run.options
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
        self._incapable: Counter[str] = Counter()
        self._first_error = ""
        self._self_check: dict[str, Any] | None = None
        self._texts: dict[str, Any] | None = None
        self._unwritten = ""

    def keep(self, carried: str) -> None:
        """Keep the record that a report carried; a later one of the same test replaces it."""
        payload = json.loads(carried)
        self._answers += payload.get("answers", 0)
        self._found += payload.get("found", 0)
        self._changes = payload.get("changes") or self._changes
        self._model_info |= payload.get("model_info", {})
        self._incapable[payload["record"]["experiment"]] += payload.get("incapable", False)
        self._append(payload["record"])

    def crashed(self, node_id: str, error: str) -> None:
        """Record the case that a worker died on: it has no report of its own."""
        for experiment in self._run.plan.values():
            if node_id in experiment.ids:
                name = experiment.name
                record = build_record(node_id, name, "error", None, (), {}, error=error)
                self._append(record.as_dict())

    def _append(self, record: Mapping[str, Any]) -> None:
        if self._log is None:
            self._log = RecordLog(self._run.folder.files.records, self._run.folder.header)
            self._config.add_cleanup(self._log.close)
        self._log.append(record)
        self._first_error = self._first_error or record["error"] or ""

    def finish(self, session: pytest.Session) -> None:
        """Judge, raise the exit code if a gate failed, write the report."""
        from pytest_llmprobe.report.summary import summarise

        self._session = session
        plan = self._run.plan
        self._experiments = [
            summarise(plan[name], self._records_of(plan[name].ids)) for name in sorted(plan)
        ]
        incapable = [n for n, skips in self._incapable.items() if skips == plan[n].collected]
        self._checks = judge(plan, self._experiments, incapable)
        if self._options.save is not None and self._options.compare is None:
            # What becomes the baseline has none to be faithful to.
            self._checks = [check for check in self._checks if check.metric not in METRICS]
        self._self_check = self._run.self_check.found()
        self._texts = self._run.fidelity.texts.found()
        measured = self._measured()
        self._compare(measured)
        self._calibrate(measured)
        if session.exitstatus == 0 and (self._all_faults() or self._falls_short()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        report = self._report(measured)
        try:
            write_atomically(self._run.folder.files.report, report_text(report))
            self._said = self._write_forms(report)
        except (OSError, ReportError) as error:
            end_run(session, unwritten(error))
            session.exitstatus = MACHINE_FAILED
            self._unwritten = str(unwritten(error))
        add_gates(session, report["gate"]["checks"], self._experiments)

    def _falls_short(self) -> bool:
        """Whether a check failed, or could not be made although it must be."""
        require, verdicts = self._options.require, [check.verdict for check in self._checks]
        undecided = "NOT JUDGED" in verdicts or (require == "something" and not verdicts)
        return "FAIL" in verdicts or (require != "nothing" and undecided)

    def _records_of(self, ids: Iterable[str]) -> Iterator[Record]:
        return map(Record.from_dict, self._log.read(ids) if self._log is not None else ())

    def _write_forms(self, report: Mapping[str, Any]) -> list[str]:
        from pytest_llmprobe.report.publish import publish

        options = self._options
        said = publish(
            report,
            self._comparison,
            page=options.html,
            text=options.markdown,
            baseline=options.save,
            repeats=self._repeats,
            prompts=self._run.folder.prompts,
        )
        if options.save is not None and report["status"] == "complete":
            said += self._run.fidelity.save(options.save)
        return said

    def _verdict(self) -> tuple[str, str]:
        """The run's verdict and its reason, from what the process will exit with."""
        assert self._session is not None
        failures = self._session.testsfailed
        return run_verdict(
            self._checks,
            int(self._session.exitstatus),
            failures,
            self._all_faults(),
            lost_to_errors(self._experiments, failures, self._first_error),
            self._comparison.prompts if self._comparison else None,
            self._config.stash.get(ENDED, (0, ""))[1],
        )

    def _all_faults(self) -> list[str]:
        """What fails the run beside its tests and gates."""
        return [*failed_summaries(self._experiments), *self._faults]

    def _compare(self, measured: Mapping[str, Any]) -> None:
        """Compare with the run that the user named; its findings are checks if the gate says so."""
        if self._options.compare is None:
            return
        from pytest_llmprobe.report.comparison import compare
        from pytest_llmprobe.report.fidelity_verdict import conclude
        from pytest_llmprobe.report.run_file import read_run, reduce_report
        from pytest_llmprobe.report.run_names import called

        (name, path), first = self._options.compare, read_run(self._options.compare[1])
        names = called(name, path, first.model, self._options.model), "this run"
        gate = self._options.gate
        self._comparison = compare(
            first, reduce_report(measured), names, same_prompts=gate == "same-prompts"
        )
        conclude(self._experiments, self._comparison)
        if gate in ("all", "baseline", "same-prompts"):
            self._checks += self._comparison.checks

    def _calibrate(self, measured: Mapping[str, Any]) -> None:
        """Measure the baseline's noise if the user asked for it and the run is whole."""
        if not self._options.calibrate or measured["status"] != "complete":
            return
        from pytest_llmprobe.plugin.calibration import repeats

        try:
            self._repeats = repeats(self._config, self._run)
        except ReportError as error:
            self._faults.append(f"the noise was not measured: {error}")

    def _measured(self) -> dict[str, Any]:
        """The report without verdicts."""
        info = dict(self._model_info)
        accelerators = info.pop("accelerators", [])
        complete = all(e["reported"] == e["selected"] for e in self._experiments)
        return self._run.folder.header | {
            "status": "complete" if complete else "interrupted",
            "environment": environment(accelerators),
            "model_info": info,
            "experiments": self._experiments,
            "timings": {
                "total_s": self._run.process.seconds,
                "generation_s": sum(e["timings"]["generation_s"] for e in self._experiments),
            },
            "self_check": self._self_check,
            "texts": self._texts,
            "tests": self._log or [],
        }

    def _checks_said(self) -> list[dict[str, Any]]:
        """The checks as the report has them."""
        return [check.as_dict() for check in self._checks]

    def _report(self, measured: Mapping[str, Any]) -> dict[str, Any]:
        verdict, reason = self._verdict()
        checks = self._checks_said()
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

    def _report_path(self) -> Path:
        return _from_here(self._run.folder.files.report, self._config)

    def _place(self) -> str:
        """Where the report is, or why there is none and what there is."""
        if not self._unwritten:
            return f"report: {self._report_path()}"
        kept = _from_here(self._run.folder.files.records, self._config)
        return (
            f"report: not written; {kept} has what was measured: make room, and go on with "
            "--llmprobe-resume"
        )

    def print_summary(self, terminal: pytest.TerminalReporter) -> None:
        """What failed, the table, where the report is, and the verdict."""
        if self._session is None:
            return
        terminal.section("llmprobe")
        wide = terminal.isatty() or "COLUMNS" in os.environ
        width = terminal._tw.fullwidth if wide else None
        told = None if self._unwritten else str(self._report_path())
        found = (self._checks, self._experiments, self._comparison, self._records_of)
        for line in said_at_end.failed_gates(*found, told):
            said_at_end.write_folded(terminal, line, width, red=line.startswith("FAIL "))
        for line in (
            *table(self._experiments, self._checks, width),
            *misses_text.miss_lines(self._experiments),
            *summaries(self._experiments),
            *remarks(self._experiments),
            *server_lines(self._model_info),
            *weights_lines(self._model_info),
            *said_at_end.compared_lines(self._comparison, width),
            *fidelity_lines(self._experiments),
            *texts_lines(self._texts),
            *self._said,
            *self._gone_on(),
            *self._run.self_check.lines(self._self_check),
        ):
            said_at_end.write_folded(terminal, line, width)
        for warning in (
            *misses_text.cut_off_warnings(self._experiments),
            self_check_warning(self._self_check),
        ):
            if warning:
                said_at_end.write_folded(terminal, warning, width, yellow=True, bold=True)
        for line in said_at_end.annotation_lines(
            self._experiments, self._checks_said(), self._comparison
        ):
            terminal.write_line(line)
        verdict, reason = self._verdict()
        colour = {"PASS": "green", "FAIL": "red"}.get(verdict, "yellow")
        terminal.write_line(self._place())
        terminal.write_line(
            f"llmprobe: GATE {verdict} ({printable(reason)})", **{colour: True, "bold": True}
        )
