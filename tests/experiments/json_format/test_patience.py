"""A user's schema may hold a pattern without an end in sight."""

import re
import signal
import threading
import time

import pytest

from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.json_format.patience import at_most
from pytest_llmprobe.experiments.json_format.scoring import schema_errors

WORDS = "a" * 60 + "!"


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"pattern": "^(a+)+$"}}},
        {"patternProperties": {"^(a|aa)+$": {}}, "additionalProperties": False},
    ],
)
def test_a_pattern_that_backtracks_is_given_up(schema, monkeypatch):
    monkeypatch.setattr("pytest_llmprobe.experiments.json_format.scoring.PATIENCE_S", 0.2)
    start = time.monotonic()
    with pytest.raises(CasesError, match=r"more than 0.2 s .* simplify its patterns"):
        schema_errors({"a": WORDS, WORDS: 1}, schema)
    assert time.monotonic() - start < 5


def test_what_is_quick_is_left_alone_and_so_is_another_timer():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(time.monotonic()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with at_most(10), pytest.raises(re.error):
            re.compile("(")
        with at_most(0.1):
            pass
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.3
        time.sleep(0.4)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(rung) == 1


def test_other_threads_are_not_interrupted():
    found = []

    def look():
        with at_most(0.01):
            time.sleep(0.05)
        found.append(True)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [True]
