"""The controller's side of a run: in the only process, or in xdist's controller.

Imported in every pytest run of the environment; the recorder is imported with the first record.
"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmprobe.distribution import PROPERTY, plan_of, prepare_worker, scratch_folder

if TYPE_CHECKING:
    from pytest_llmprobe.progress import WorkersProgress
    from pytest_llmprobe.recorder import Recorder


class Controller:
    """Passes on what concerns the recorder, and makes none where there is nothing to record."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self._started = time.time()
        self._recorder: Recorder | None = None
        self._progress: WorkersProgress | None = None

    @property
    def recorder(self) -> Recorder:
        """The recorder, made when it is first needed."""
        if self._recorder is None:
            from pytest_llmprobe.recorder import Recorder

            self._recorder = Recorder(self.config, self._started)
        return self._recorder

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where to leave its plan; watch the workers' progress for a person."""
        if prepare_worker(self.config, node.workerinput) and self._progress is None:
            from pytest_llmprobe.progress import WorkersProgress

            self._progress = WorkersProgress(self.config)
            self._progress.start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the record that a report carries."""
        crashed = str(report.when) == "???"  # how xdist reports the test that its worker died in
        if crashed and plan_of(self.config):
            self.recorder.crashed(report.nodeid, str(report.longrepr))
        for key, value in report.user_properties:
            if key == PROPERTY:
                self.recorder.keep(str(value))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge, raise the exit code if a gate failed, write the report."""
        if self._progress is not None:
            self._progress.stop()
        if plan_of(self.config) and not self.config.option.collectonly:
            self.recorder.finish(session)
        shutil.rmtree(scratch_folder(self.config), ignore_errors=True)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table, where the report is, and the verdict."""
        if self._recorder is not None:
            self._recorder.print_summary(terminalreporter)
