"""Signals, and the scratch folders of sessions that were killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pytest_llmprobe.errors import AccessError, OutageError, StorageError
from pytest_llmprobe.plugin import ending
from pytest_llmprobe.plugin.ending import Signals, code_of
from pytest_llmprobe.plugin.scratch import hold, remove_abandoned


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AccessError("no"), 6),
        (OutageError("no"), 6),
        (StorageError("full"), 7),
        (OSError(28, "No space left on device"), 7),
        (OSError(2, "No such file"), None),
        (MemoryError(), 7),
        (ValueError("a test's own"), None),
        (None, None),
    ],
)
def test_only_what_is_no_fault_of_the_model_has_a_code_of_its_own(error, code):
    assert code_of(error) == code


def test_after_an_interrupt_a_job_that_is_cancelled_finishes_and_a_person_can_leave(monkeypatch):
    left = []
    monkeypatch.setattr(ending.os, "_exit", left.append)
    before = signal.getsignal(signal.SIGINT)
    signals = Signals()
    signals.listen()
    try:
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        signals.interrupted()
        os.kill(os.getpid(), signal.SIGTERM)
        assert left == []
        os.kill(os.getpid(), signal.SIGINT)
        assert left == [2]
    finally:
        signals.restore()
        signal.signal(signal.SIGINT, before)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_somebody_elses_handler_is_left_alone(monkeypatch):
    def handler(*_):
        return None

    before = signal.signal(signal.SIGTERM, handler)
    try:
        signals = Signals()
        signals.listen()
        signals.interrupted()
        signals.restore()
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_folders_of_killed_sessions_are_removed_and_no_others(tmp_path):
    made = {}
    for name in ("llmprobe-" + "a" * 16, "llmprobe-" + "b" * 16, "llmprobe-" + "c" * 16):
        made[name] = hold(tmp_path / name)
    other = tmp_path / "llmprobe-notes"
    other.mkdir()
    dead, alive, young = sorted(made)
    os.close(made[dead])
    os.close(made[young])
    hour_ago = time.time() - 3600
    for name in (dead, alive, other.name):
        os.utime(tmp_path / name, (hour_ago, hour_ago))
    remove_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive, young, other.name]
    os.close(made[alive])


def test_a_scratch_folder_that_cannot_be_made_says_where_another_may_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="TMPDIR names another place"):
        hold(tmp_path / "file" / "llmprobe-x")


ORPHAN = """
import os, pathlib, time
from pytest_llmprobe.plugin.ending import leave_with_controller

if os.fork():
    pathlib.Path("ready").touch()
    time.sleep(60)
leave_with_controller(pathlib.Path("left").touch)
time.sleep(60)
"""


def test_a_worker_leaves_with_a_controller_that_is_killed(tmp_path):
    controller = subprocess.Popen([sys.executable, "-c", ORPHAN], cwd=tmp_path)
    deadline = time.monotonic() + 30
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)
    assert not (tmp_path / "left").exists()
    controller.kill()
    controller.wait()
    while not (tmp_path / "left").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


KILLED = """
    import os
    import signal
    from pathlib import Path
    import pytest
    from pytest_llmprobe import Case

    @pytest.mark.probe(cases=[Case(f"g{n // 4}/c{n}", f"say {n}", str(n)) for n in range(40)])
    def test_echo(case, completion):
        if case.target == "17" and Path("vmstat").exists():
            Path("vmstat").write_text(os.environ["COUNTED"])
            os.kill(os.getpid(), signal.SIGKILL)
        assert completion.text == case.target
"""

OWN_COUNTERS = """
    from pathlib import Path
    from pytest_llmprobe.plugin import dead_worker
    dead_worker.COUNTERS = Path("vmstat")
"""


@pytest.mark.parametrize("mode", [("-n", "2")])
@pytest.mark.parametrize("counted", ["5", "4"])
def test_a_worker_that_dies_for_want_of_memory_ends_the_run_and_no_other(
    project, probe, pytester, monkeypatch, counted
):
    monkeypatch.setenv("COUNTED", f"pgfault 1\noom_kill {counted}\n")
    project(KILLED, conftest=OWN_COUNTERS)
    (pytester.path / "vmstat").write_text("pgfault 1\noom_kill 4\n")
    run = probe()
    (dead,) = [test for test in run.tests.values() if test["outcome"] == "error"]
    assert "crashed while running 'test_eval.py::test_echo[g4/c17]'" in dead["error"]
    if counted == "4":  # somebody else has killed it
        assert (run.exit_code, run.outcomes["passed"]) == (1, 39)
        assert dead["error"].endswith("it died of SIGKILL")
        return
    assert (run.exit_code, run.verdict) == (7, "NOT JUDGED")
    assert "no memory left: fewer workers (-n) or a smaller --llmprobe-batch-size" in run.text
    (pytester.path / "vmstat").unlink()
    again = probe("--llmprobe-resume")
    assert (again.exit_code, again.outcomes) == (0, {"passed": 40})
