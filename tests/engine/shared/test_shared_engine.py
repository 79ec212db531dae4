"""One process with the model for all workers: the same answers, one copy, and an end in time."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from textwrap import dedent

import pytest
from waiting import eventually

from pytest_llmprobe import Engine, GenerateConfig, RawPrompt, Request, ScriptedModel, Steer
from pytest_llmprobe.case import Span
from pytest_llmprobe.engine.planning import Row, RowSteering
from pytest_llmprobe.engine.shared import SharedSettings, join, messages, server
from pytest_llmprobe.errors import ModelError, RequestError, SettingsError, SteeringError
from pytest_llmprobe.models.registry import resolve, with_options

SCRIPTED = """
    import sys, time
    from pathlib import Path
    from pytest_llmprobe import ScriptedModel
    from pytest_llmprobe.engine.shared import server
    from pytest_llmprobe.errors import RequestError

    server.LINGER_S = 0.5
    memory = []

    def answer(prompt):
        if prompt.startswith("slow"):
            time.sleep(30)
        if prompt.startswith("refuse"):
            raise RequestError("refused: " + prompt)
        if prompt.startswith("break"):
            raise ValueError("broken")
        if prompt.startswith("big") and not memory:
            memory.append(1)
            raise MemoryError("too big")
        return prompt.upper()

    model = ScriptedModel(answer, context_length=100)
    folder = Path(sys.argv[1])
    server.EngineServer(model, model.encode).serve(folder / "engine.sock")
    server.end(folder)
"""


@pytest.fixture
def scripted(tmp_path):
    """The folder of an engine's process whose model is scripted, and the process."""
    folder = tmp_path / "e"
    folder.mkdir(mode=0o700)
    process = subprocess.Popen([sys.executable, "-c", dedent(SCRIPTED), str(folder)])
    assert eventually(lambda: (folder / "engine.sock").exists())
    yield folder, process
    process.kill()
    process.wait()


SETTINGS = SharedSettings(resolve("reference"), None, True, 1)


def test_a_shared_model_answers_as_the_model_itself(scripted):
    folder, _ = scripted
    here = Engine(ScriptedModel(str.upper, context_length=100))
    there = Engine(join(folder, SETTINGS))
    requests = [
        Request("hello", GenerateConfig(max_new_tokens=3)),
        Request("hello there", GenerateConfig(stop="T")),
        Request([{"role": "user", "content": "été"}]),
        Request(RawPrompt("raw"), draft="RAW"),
    ]
    assert repr(there.attempt(requests)) == repr(here.attempt(requests))  # all but the times
    assert there.backend.info == here.backend.info
    there.backend.close()


def test_errors_keep_their_kind_and_out_of_memory_halves_the_batch(scripted):
    engine = Engine(join(scripted[0], SETTINGS))
    refused, fine, long = engine.attempt([Request("refuse"), Request("fine"), Request("x" * 99)])
    assert (type(refused), str(refused)) == (RequestError, "refused: refuse")
    assert fine.text == "FINE"
    assert "context is 100" in str(long)
    assert [c.timings.batch_size for c in engine.generate(["big a", "b"])] == [1, 1]
    with pytest.raises(RuntimeError, match="ValueError: broken"):
        engine.generate(["break"])
    with pytest.raises(SteeringError, match="no attention"):
        engine.generate([Request("say it", steer=Steer("it", 1.0))])
    engine.backend.close()


def test_rows_and_steering_cross_unchanged():
    steering = RowSteering((0.0, 1.5, -1e-300), (0, 3), "prefill", ("it",))
    config = GenerateConfig(stop=("a", "b"), temperature=0.3)
    rows = [Row(1, (1, 2), config, 2**62, (7, 8), steering), Row(2, (), config, 0, "draft")]
    for row in rows:
        assert messages.row_in(json.loads(json.dumps(asdict(row)))) == row
    steer = Steer((Span("it", 0.5, 1, 2),), 1.5, (3, 1), "prefill")
    assert messages.steer_in(json.loads(json.dumps(asdict(steer)))) == steer


def test_nobody_but_its_user_may_open_the_socket(scripted):
    folder, _ = scripted
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "engine.sock").stat().st_mode & 0o077 == 0


def test_the_process_ends_and_leaves_nothing_when_its_last_client_has_gone(scripted):
    folder, process = scripted
    one, other = join(folder, SETTINGS), join(folder, SETTINGS)
    one.close()
    assert other.encode("a") == [97]
    time.sleep(1)
    assert process.poll() is None
    other.close()
    assert eventually(lambda: process.poll() is not None)
    assert not folder.exists()


def test_the_process_ends_when_its_client_is_killed_in_the_middle_of_a_batch(scripted):
    folder, process = scripted
    code = f"""
        from pathlib import Path
        from pytest_llmprobe import Engine
        from pytest_llmprobe.engine.shared import SharedSettings, join
        from pytest_llmprobe.models.registry import resolve
        settings = SharedSettings(resolve("reference"), None, True)
        engine = Engine(join(Path({str(folder)!r}), settings))
        print("asked", flush=True)
        engine.generate(["slow"])
    """
    client = subprocess.Popen([sys.executable, "-c", dedent(code)], stdout=subprocess.PIPE)
    assert client.stdout.readline() == b"asked\n"
    time.sleep(0.5)
    client.kill()
    client.communicate()
    assert eventually(lambda: process.poll() is not None, 10)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it reads Linux's /proc")
def test_a_process_that_is_being_started_ends_with_the_one_that_starts_it(tmp_path):
    code = f"""
        from pathlib import Path
        from pytest_llmprobe.engine.shared import start
        from pytest_llmprobe.models.registry import resolve
        settings = start.SharedSettings(resolve("reference"), None, True)
        def say(*given, **named):
            process = popen(*given, **named)
            print(process.pid, flush=True)
            return process
        popen, start.subprocess.Popen = start.subprocess.Popen, say
        start.join(Path({str(tmp_path / "e")!r}), settings)
    """
    starter = subprocess.Popen([sys.executable, "-c", dedent(code)], stdout=subprocess.PIPE)
    started = Path("/proc", starter.stdout.readline().decode().strip(), "stat")

    def ended():
        try:
            return started.read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    time.sleep(0.5)
    assert not ended()
    starter.kill()
    starter.communicate()
    assert eventually(ended, 3)


def test_a_process_that_is_gone_is_an_error_that_says_so(scripted):
    folder, process = scripted
    engine = Engine(join(folder, SETTINGS))
    process.kill()
    with pytest.raises(ModelError, match="the shared engine is gone"):
        engine.generate(["a"])


def test_a_model_that_cannot_be_loaded_is_told_in_its_own_words(tmp_path):
    (tmp_path / "model").mkdir()
    spec = with_options(resolve(str(tmp_path / "model")))
    with pytest.raises(ModelError, match=r"is no model folder: it has no config\.json"):
        join(tmp_path / "e", SharedSettings(spec, None, True))


def test_a_path_that_no_socket_can_have_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="set TMPDIR"):
        join(tmp_path / ("x" * 90), SETTINGS)


EVAL = """
    import pytest
    from pytest_llmprobe import Case

    def cases():
        for group in range(4):
            for name in "ab":
                yield Case(f"g{group}/{name}", f"{group} Repeat: {name} {group}", name)

    @pytest.mark.probe(cases=cases, max_new_tokens=6)
    def test_repeat(case, completion):
        assert case.target in completion.text

    @pytest.mark.probe(cases=[Case("a", "b")])
    def test_inside(case, model):
        raise AssertionError
"""

TIMES = ("duration", "latency_s", "wall_s")


def test_a_run_with_a_shared_engine_gives_the_same_report(pytester):
    pytester.makepyfile(test_eval=dedent(EVAL))
    reports = {}
    for engine, workers in (("process", "0"), ("shared", "2")):
        options = (f"--llmprobe-engine={engine}", f"--llmprobe-json={engine}.json")
        result = pytester.runpytest_subprocess("-n", workers, *options)
        assert result.ret == 0
        reports[engine] = json.loads((pytester.path / f"{engine}.json").read_text())
    shared, alone = reports["shared"], reports["process"]
    assert shared["model_info"] == alone["model_info"]
    for ours, theirs in zip(alone["tests"], shared["tests"], strict=True):
        if "test_inside" in ours["id"]:
            assert (theirs["outcome"], ours["outcome"]) == ("skipped", "missed")
            assert "shared keeps it elsewhere" in theirs["explanation"]
        else:
            assert ours | dict.fromkeys(TIMES) == theirs | dict.fromkeys(TIMES)


def engines(folder):
    """Processes that serve an engine below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:
            continue
        if "pytest_llmprobe.engine.shared" in words and str(folder) in " ".join(words):
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_engine_ends_after_the_controller_was_killed(pytester, tmp_path_factory):
    slow = EVAL.replace("assert case.target", "__import__('time').sleep(60); assert case.target")
    pytester.makepyfile(test_eval=dedent(slow))
    temporary = tmp_path_factory.mktemp("t")
    controller = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-n", "2", "--llmprobe-engine=shared"],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
    )
    assert eventually(lambda: list(temporary.glob("*/engine/engine.sock")), 120)
    (pid,) = engines(temporary)
    controller.send_signal(signal.SIGKILL)
    controller.wait()
    assert eventually(lambda: engines(temporary) == [], 30), pid


def test_the_path_is_there_when_somebody_listens_and_not_before(tmp_path, monkeypatch):
    seen = []

    class Watched(server.socket.socket):
        def listen(self, backlog):
            seen.append((tmp_path / "s").exists())
            super().listen(backlog)

    monkeypatch.setattr(server.socket, "socket", Watched)
    monkeypatch.setattr(server, "FIRST_S", 0.0)
    model = ScriptedModel(str)
    server.EngineServer(model, model.encode).serve(tmp_path / "s")
    assert seen == [False]
