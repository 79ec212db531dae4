"""pytest hooks. This module loads in every pytest run of the environment: it must be free."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmprobe import collection, options
from pytest_llmprobe.distribution import is_worker, unit_scheduler
from pytest_llmprobe.fixtures import completion, engine, generate, model, score
from pytest_llmprobe.recorder import Recorder, attach_record, test_status

if TYPE_CHECKING:
    from xdist.remote import Producer

__all__ = ["completion", "engine", "generate", "model", "score"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our options; ``--model`` comes later."""
    options.add_options(parser)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None, object, object]:
    """``--model``, once every plugin and conftest that may own it has been heard."""
    result = yield
    options.add_short_model_option(parser)
    return result


def pytest_configure(config: pytest.Config) -> None:
    """Markers; where reports arrive, the recorder; a wrong ``--model`` ends the run here."""
    collection.declare_markers(config)
    if not is_worker(config):
        options.check_explicit(config)
        config.pluginmanager.register(Recorder(config), "llmprobe-recorder")


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case."""
    collection.parametrise(metafunc)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Experiments and work units of what was selected, before xdist is told the ids."""
    collection.plan_session(session)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The record rides on the report."""
    report = yield
    return attach_record(item, call, report)


def pytest_report_teststatus(report: Any) -> tuple[str, str, Any] | None:
    """``m`` for a miss."""
    return test_status(report)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> object:
    """Keep work units whole."""
    return unit_scheduler(config, log)
