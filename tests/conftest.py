"""For all tests: interrupts work, and runs within tests load no other plugins."""

import signal

import pytest

# A shell lets its background jobs ignore interrupts, and so would the runs that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

OTHER_PLUGINS = ("hypothesispytest", "html", "html_fixtures", "metadata", "benchmark", "anyio")


@pytest.fixture(autouse=True)
def _only_this_plugin(request, monkeypatch):
    """Importing all that the environment holds would take longer than most runs do."""
    if "pytester" in request.fixturenames:
        request.getfixturevalue("pytester")  # which begins with an environment without options
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(f"-p no:{name}" for name in OTHER_PLUGINS))
