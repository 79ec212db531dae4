"""Progress: now and then, and always the last state."""

import io
import sys

import pytest

from pytest_llmprobe.cli import progress
from pytest_llmprobe.cli.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def stderr(monkeypatch):
    """What is written, to a terminal or a file."""

    def stderr(terminal):
        stream = io.StringIO()
        stream.isatty = lambda: terminal
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return stderr


@pytest.mark.parametrize(
    ("terminal", "written"),
    [(True, "\r\x1b[K1 of 4\r\x1b[K4 of 4\n"), (False, "1 of 4\n4 of 4\n")],
)
def test_states_are_shown_at_intervals_and_the_last_one_always(clock, stderr, terminal, written):
    stream = stderr(terminal)
    with Progress() as shown:
        for number in range(1, 5):
            clock[0] = 10.0 + number / 100
            shown.show(f"{number} of 4")
    assert stream.getvalue() == written


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_to_show_writes_nothing(clock, stderr, terminal):
    stream = stderr(terminal)
    with Progress():
        pass
    assert stream.getvalue() == ""


def test_a_state_is_not_shown_twice(clock, stderr):
    stream = stderr(False)
    with Progress() as shown:
        clock[0] = 100.0
        shown.show("done")
    assert stream.getvalue() == "done\n"
