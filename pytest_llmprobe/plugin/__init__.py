"""pytest hooks, loaded in every run of the environment: free where no test has our marker."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_llmprobe.plugin import command_line, model_command_line
from pytest_llmprobe.plugin.controller import Controller
from pytest_llmprobe.plugin.distribution import unit_scheduler
from pytest_llmprobe.plugin.process import MISSED, RUN, process_of
from pytest_llmprobe.plugin.refusal import concerns_us, pytest_make_collect_report

__all__ = ["pytest_make_collect_report"]

# None of these may be imported yet: pytest rewrites their assertions, or warns that it cannot.
pytest_plugins = ["pytest_llmprobe.plugin.fixtures", "pytest_llmprobe.plugin.likelihoods"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our options; ``--model`` comes later."""
    command_line.add_options(parser)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None, object, object]:
    """``--model``, once every plugin and conftest that may own it has been heard."""
    result = yield
    model_command_line.add_short_model_option(parser)
    return result


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Several models are runs of their own."""
    from pytest_llmprobe.plugin.several_models import run_several

    return run_several(config)


def pytest_configure(config: pytest.Config) -> None:
    """Markers; where reports arrive, the controller; what is wrong on the command line."""
    command_line.declare_markers(config)
    if not process_of(config).is_worker:
        if command_line.names_model_or_report(config):
            from pytest_llmprobe.plugin.reachable import check_explicit

            check_explicit(config)
        config.pluginmanager.register(Controller(config), "llmprobe-controller")


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case."""
    if metafunc.definition.get_closest_marker("probe") is not None:
        from pytest_llmprobe.plugin.collection import parametrise

        parametrise(metafunc)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """The Run, made of what was selected, before xdist is told the ids."""
    if concerns_us(session):
        from pytest_llmprobe.plugin.run import begin_unless_refused

        begin_unless_refused(session)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The record rides on the report."""
    report = yield
    if (run := item.config.stash.get(RUN, None)) is not None:
        from pytest_llmprobe.plugin.outcomes import attach_record

        attach_record(run, item, call, report)
    return report


def pytest_report_teststatus(report: Any) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    """``m`` for a miss that only counts."""
    if getattr(report, MISSED, False) and report.when == "call" and report.outcome == "passed":
        return "missed", "m", ("MISSED", {"yellow": True})
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """Keep work units whole."""
    return unit_scheduler(config, log)
