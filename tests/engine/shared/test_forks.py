"""Forks of the process with the model: side by side, no more than its cores, and none left over."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from textwrap import dedent

import pytest
from waiting import eventually

from pytest_llmprobe import Engine, ScriptedModel
from pytest_llmprobe.engine.shared import SharedBackend, SharedSettings, join, server
from pytest_llmprobe.engine.shared.forks import Forks, Slots, batches_at_once
from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.loading import load_model
from pytest_llmprobe.models.registry import resolve

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are made on Linux alone")

SERVED = """
    import os, sys, threading, time
    from functools import partial
    from pathlib import Path
    from pytest_llmprobe import ScriptedModel
    from pytest_llmprobe.engine.shared import __main__ as process, forks, server

    server.LINGER_S = 0.5
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    marks = folder.parent

    def answer(prompt):
        # "come a wait b": leave mark a, then wait for mark b.
        words = prompt.split()
        if "come" in words:
            (marks / words[words.index("come") + 1]).write_text(str(os.getpid()))
        while "wait" in words and not (marks / words[words.index("wait") + 1]).exists():
            time.sleep(0.01)
        return str(os.getpid())

    watch = partial(process._leave_with, folder, joined=threading.Event())
    model = ScriptedModel(answer)
    forked = forks.Forks(folder, count, 1, watch)
    server.EngineServer(model, model.encode, None, forked).serve(folder / "engine.sock")
    server.end(folder)
"""
SETTINGS = SharedSettings(resolve("reference"), None, True, 2, 2)


@pytest.fixture
def serve(tmp_path):
    """Starts an engine's process with a scripted model, with so many batches at once."""
    started = []

    def start(count):
        folder = tmp_path / "e"
        folder.mkdir(mode=0o700)
        command = [sys.executable, "-c", dedent(SERVED), str(folder), str(count)]
        started.append(subprocess.Popen(command))
        assert eventually(lambda: (folder / "engine.sock").exists())
        return folder, started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def is_there(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Asked(threading.Thread):
    """Asks the engine's process in a thread of its own."""

    def __init__(self, folder, prompt):
        super().__init__(daemon=True)
        self.engine, self.prompt = Engine(join(folder, SETTINGS)), prompt
        self.answer = self.error = None
        self.start()

    def run(self):
        try:
            self.answer = self.engine.generate([self.prompt])[0].text
        except Exception as error:
            self.error = error


def test_batches_of_two_clients_are_computed_side_by_side(serve):
    folder, process = serve(2)
    asked = [Asked(folder, "come a wait b"), Asked(folder, "come b wait a")]
    for each in asked:
        each.join(20)
    pids = {int(each.answer) for each in asked}
    assert len(pids) == 2
    assert process.pid not in pids
    for each in asked:
        each.engine.backend.close()
    assert eventually(lambda: process.poll() is not None)
    assert not any(map(is_there, pids))
    assert not folder.exists()


def test_no_more_batches_than_slots(serve, tmp_path):
    folder, _ = serve(1)
    one = Asked(folder, "come a wait b")
    assert eventually((tmp_path / "a").exists)
    other = Asked(folder, "come b")
    time.sleep(0.5)
    assert not (tmp_path / "b").exists()
    assert (one.answer, other.answer) == (None, None)
    # The one that holds the slot is killed; its lock goes with it.
    os.kill(int((tmp_path / "a").read_text()), signal.SIGKILL)
    other.join(20)
    assert (tmp_path / "b").read_text() == other.answer
    one.join(20)
    other.engine.backend.close()


def test_a_fork_that_is_killed_is_an_error_that_says_so(serve, tmp_path):
    folder, process = serve(2)
    asked = Asked(folder, "come a wait b")
    assert eventually((tmp_path / "a").exists)
    later = Asked(folder, "again")  # its fork has the other's socket open, too
    later.join(20)
    os.kill(int((tmp_path / "a").read_text()), signal.SIGKILL)
    asked.join(20)
    assert isinstance(asked.error, ModelError)
    assert "the shared engine is gone" in str(asked.error)
    assert process.poll() is None
    assert later.engine.generate(["again"])[0].text == later.answer
    later.engine.backend.close()


def test_a_client_that_hangs_up_ends_its_fork_in_the_middle_of_a_batch(serve, tmp_path):
    folder, process = serve(2)
    other = join(folder, SETTINGS)
    asked = Asked(folder, "come a wait b")
    assert eventually((tmp_path / "a").exists)
    pid = int((tmp_path / "a").read_text())
    asked.engine.backend._socket.shutdown(2)
    assert eventually(lambda: not is_there(pid), 5)
    assert process.poll() is None
    other.close()
    asked.join(20)


def test_forks_end_with_the_process_that_has_made_them(serve, tmp_path):
    folder, process = serve(2)
    asked = Asked(folder, "come a wait b")
    assert eventually((tmp_path / "a").exists)
    process.kill()
    process.wait()
    asked.join(20)
    assert isinstance(asked.error, ModelError)
    assert eventually(lambda: not is_there(int((tmp_path / "a").read_text())), 5)


def test_the_slot_that_is_free_first_is_taken(tmp_path):
    first, second, third = (Slots(tmp_path, 2) for _ in range(3))
    waiting = threading.Thread(target=third.__enter__, daemon=True)
    with first:
        with second:
            waiting.start()
            waiting.join(0.3)
            assert waiting.is_alive()
        waiting.join(20)
        assert not waiting.is_alive()


def test_a_client_for_whom_there_is_no_process_is_told_so_and_others_go_on(tmp_path, monkeypatch):
    def no_fork():
        raise BlockingIOError("no more processes")

    model = ScriptedModel(str)
    forks = Forks(tmp_path, 2, 1, print)
    monkeypatch.setattr(server.os, "fork", no_fork)
    here, there = socket.socketpair()
    assert list(server.EngineServer(model, model.encode, None, forks)._attended(here)) == []
    with pytest.raises(ModelError, match="the shared engine is gone"):
        SharedBackend(there)


def test_what_goes_wrong_in_a_fork_is_in_the_log(tmp_path, capfd):
    def broken(server):
        raise RuntimeError("cannot begin")

    model = ScriptedModel(str)
    forks = Forks(tmp_path, 2, 1, print)
    object.__setattr__(forks, "begin", broken)
    here, there = socket.socketpair()
    (client,) = server.EngineServer(model, model.encode, None, forks)._attended(here)
    while not client.has_gone():
        time.sleep(0.02)
    assert "RuntimeError: cannot begin" in capfd.readouterr().err
    with pytest.raises(ModelError, match="the shared engine is gone"):
        SharedBackend(there)


@pytest.mark.parametrize(
    ("threads", "workers", "count"), [(None, 4, 1), (1, 4, 1), (2, 4, 2), (8, 3, 3), (8, 1, 1)]
)
def test_as_many_batches_at_once_as_there_are_cores_and_workers(threads, workers, count):
    assert batches_at_once(SharedSettings(SETTINGS.spec, None, True, threads, workers)) == count


def test_a_model_on_an_accelerator_is_not_forked(tmp_path, monkeypatch):
    threads = []
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    loaded = load_model("reference")
    loaded.model.to("meta")
    assert Forks.of(loaded, None, SETTINGS, tmp_path, print) is None
    assert threads == [2]
