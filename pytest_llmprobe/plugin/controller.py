"""The controller's side of a run: in the only process, or in xdist's controller.

Imported in every pytest run of the environment; the recorder is imported with the first record.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmprobe.errors import StorageError
from pytest_llmprobe.plugin.command_line import names_model_or_report
from pytest_llmprobe.plugin.ending import ENDED, Signals, end_run, has_line, heard, unwritten
from pytest_llmprobe.plugin.process import PROPERTY, RUN, process_of
from pytest_llmprobe.plugin.refusal import refused_by_workers

if TYPE_CHECKING:
    from pytest_llmprobe.plugin.progress import WorkersProgress
    from pytest_llmprobe.plugin.recorder import Recorder
    from pytest_llmprobe.plugin.run import Run


def session_run(config: pytest.Config) -> Run | None:
    """The session's Run where there are probe cases: collected here, or left by the workers."""
    run: Run | None = config.stash.get(RUN, None)
    if run is None and process_of(config).plan_file.exists():
        from pytest_llmprobe.plugin.run import join_workers

        process_of(config).make_scratch()  # held here, too: workers may die
        run = join_workers(config)
    return run if run is not None and run.plan else None


def terminal_of(config: pytest.Config) -> pytest.TerminalReporter | None:
    """Who writes to the terminal, if anybody does."""
    return config.pluginmanager.get_plugin("terminalreporter")


class Controller:
    """Passes on what concerns the recorder, and makes none where there is nothing to record."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.process = config, process_of(config)
        self._recorder: Recorder | None = None
        self._progress: WorkersProgress | None = None
        self._columns: bool | None = None
        self._refused: str | None = None
        self._begun = False
        self._session: pytest.Session | None = None
        self._signals = Signals()
        self._death: str | StorageError = "nothing is known of its end"
        self._kills = 0

    @property
    def recorder(self) -> Recorder | None:
        """The recorder, made when it is first needed; None without probe cases."""
        run = session_run(self.config)
        if self._recorder is None and run is not None:
            from pytest_llmprobe.plugin.recorder import Recorder

            self._recorder = Recorder(run, self.config)
            self._signals.listen()
        return self._recorder

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Remember the session, which may have to end."""
        self._session = session

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where to leave its plan; watch the workers' progress for a person."""
        from pytest_llmprobe.plugin.dead_worker import memory_kills

        self._kills = self._kills or memory_kills()
        node.workerinput.update(self.process.for_worker())
        if names_model_or_report(self.config):  # others may have no cases of ours
            self._signals.listen()
        if self.process.watched and self._progress is None:
            from pytest_llmprobe.plugin.progress import WorkersProgress

            self._progress = WorkersProgress(self.config)
            self._progress.start()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Hear why a worker has ended the run, if it has, and tell the others if it has died."""
        if error is not None:
            from pytest_llmprobe.plugin.dead_worker import death_of

            self.process.lost(str(node.gateway.id))
            self._death = death_of(node, self._kills)
            if isinstance(self._death, StorageError) and self._session is not None:
                end_run(self._session, self._death)  # its successor would need as much
        heard(self.config, node)

    def pytest_collection_finish(self) -> None:
        """From the first case on a cancelled job has a report."""
        if self.config.stash.get(RUN, None) is not None:
            self._signals.listen()

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """The report comes first, and pytest must be able to show where the run was."""
        self._signals.interrupted()
        excinfo.traceback = excinfo.traceback.filter(has_line)

    def pytest_unconfigure(self) -> None:
        """Leave signals as they were."""
        self._signals.restore()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        """Say before the first test what is asked of which model."""
        if self._begun:
            return
        self._begun = True
        run, reporter = session_run(self.config), terminal_of(self.config)
        if run is None or reporter is None or self.config.get_verbosity() < 0:
            return
        from pytest_llmprobe.plugin.run_header import header_lines
        from pytest_llmprobe.plugin.said_at_end import write_folded
        from pytest_llmprobe.report.terminal import terminal_width

        reporter.ensure_newline()
        for line in header_lines(run):
            write_folded(reporter, line, terminal_width())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logreport(
        self, report: pytest.TestReport
    ) -> Generator[None, object, object]:
        """Keep the record that a report carries; a long run keeps little of the report."""
        try:
            self._keep(report)
        except (OSError, StorageError) as error:
            assert self._session is not None
            end_run(self._session, unwritten(error))
        # The record is not for other reporters, which would show it whole.
        report.user_properties = [pair for pair in report.user_properties if pair[0] != PROPERTY]
        with self._progress.held_back() if self._progress is not None else nullcontext():
            result = yield
        if self._recorder is not None and report.passed:
            self._let_go(report)
        return result

    def _let_go(self, report: pytest.TestReport) -> None:
        """What nobody reads again of what the terminal keeps of every test until the end."""
        report.keywords = {}
        terminal = terminal_of(self.config)
        if terminal is not None and self.config.getoption("durations", None) is None:
            terminal.stats.pop("", None)  # setup and teardown, which only --durations asks for

    def _keep(self, report: pytest.TestReport) -> None:
        crashed = str(report.when) == "???"  # how xdist reports the test that its worker died in
        if crashed and self.recorder is not None:
            self.recorder.crashed(report.nodeid, f"{report.longrepr}: {self._death}")
        for key, value in report.user_properties:
            if key == PROPERTY and self.recorder is not None:
                self.recorder.keep(str(value))

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_row(self, report: pytest.TestReport, cells: list[str]) -> None:
        """What a case's answer was, in pytest-html's table."""
        if self._recorder is None:
            return
        from pytest_llmprobe.plugin.other_reporters import add_columns, row_cells

        if self._columns is None:
            self._columns = add_columns(self.config)
        if self._columns:
            cells += row_cells(report.user_properties)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge, raise the exit code if a gate failed, write the report."""
        if self._progress is not None:
            self._progress.stop()
        self._refused = refused_by_workers(self.config)
        if self._refused is not None:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        elif not self.config.option.collectonly and self.recorder is not None:
            if (ended := self.config.stash.get(ENDED, None)) is not None:
                session.exitstatus = ended[0]
            self.recorder.finish(session)
        self.process.leave_scratch()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table, where the report is, and the verdict; or why there was no run."""
        if self._refused is not None:
            terminalreporter.write_line(f"ERROR: {self._refused}", red=True)
        if self._recorder is not None:
            self._recorder.print_summary(terminalreporter)
