"""Real runs that are killed at random: nothing is lost or doubled, nothing is left behind.

    python tests/benchmarks/random_kills.py [--kills 40] [--seed 1]

Evaluations on the reference model and on a server, in one process and with two workers. Each run is
killed several times (its controller, a worker, all of it, SIGTERM, SIGINT, the process with the
shared model, the server), resumed after each kill, and left alone in the end: its report must then
equal that of a run which was left alone from the start, but for times. After each kill every answer
that was on disk is still there, and no process stays; in the end no scratch folder does. Prints a
line for each kill, and ends with exit code 1 if something was not as it should be. Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

ROOT = Path(__file__).parents[2]
MARK = "LLMPROBE_KILLED_RUN"
GONE_S = 5.0
"""Seconds in which every process of a run has to be gone after it was killed."""
KILLS_OF_A_RUN = 5
TIMES = ("duration", "batch_size", "latency_s", "first_token_s", "wall_s")
CASES = {"reference": 48, "served": 160}

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    def cases():
        for group in range(GROUPS):
            for name in range(4):
                text = f"{group}.{name}"
                yield Case(f"g{group}/c{name}", f"Repeat after me: {text}", text)

    @pytest.mark.probe(cases=cases, max_new_tokens=12)
    @pytest.mark.gate(pass_rate=0.5)
    def test_echo(case, completion, score):
        score("length", len(completion.text))
        assert completion.text == case.target, "it said something else"
"""

SERVER = """
    import json, random, sys, threading, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            prompt = asked["messages"][0]["content"]
            time.sleep(random.Random(prompt).uniform(0.1, 0.4))
            said = prompt.split()[-1]
            message = {"role": "assistant", "content": "no" if said.endswith(".0") else said}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            usage = {"prompt_tokens": 4, "completion_tokens": 2}
            body = json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode()
            with open("asked", "a") as file:
                file.write(prompt + chr(10))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_):
            pass  # a client that is killed is no error

    server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
"""


@dataclass
class Server:
    """A server that may be killed, and comes back under the same port."""

    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Unless it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        command = [sys.executable, "-c", dedent(SERVER), str(self.port)]
        self.process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def stop(self) -> None:
        """Without a word."""
        assert self.process is not None
        self.process.kill()
        self.process.communicate()


@dataclass
class Setup:
    """One evaluation under one number of workers; its runs, one after another."""

    kind: str
    workers: int
    folder: Path
    server: Server | None = None
    command: list[str] = field(default_factory=list)
    run: Path | None = None
    older: set[Path] = field(default_factory=set)
    seconds: float = 0.0
    expected: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        (self.folder / "tmp").mkdir()
        groups = str(CASES[self.kind] // 4)
        (self.folder / "test_echo.py").write_text(dedent(EVAL).replace("GROUPS", groups))
        self.command = [sys.executable, "-m", "pytest", "-q", "-n", str(self.workers)]
        if self.kind == "served":
            self.server = Server(self.folder)
            self.server.start()
            url = f"--llmprobe-base-url=http://127.0.0.1:{self.server.port}/v1"
            self.command += ["--model=openai:m", url, "--llmprobe-concurrency=4"]
        else:
            self.command += ["--llmprobe-batch-size=4"]
            self.command += ["--llmprobe-engine=shared"] * (self.workers > 0)

    @property
    def runs(self) -> Path:
        """The folder of all runs."""
        return self.folder / ".llmprobe" / "runs"

    @property
    def scratch(self) -> list[Path]:
        """What sessions have left for each other."""
        return list((self.folder / "tmp").glob("llmprobe-*"))

    def start(self) -> subprocess.Popen[bytes]:
        """The run, or what is left of it."""
        resumed = [] if self.run is None else [f"--llmprobe-resume={self.run}"]
        environment = os.environ | {MARK: str(self.folder), "TMPDIR": str(self.folder / "tmp")}
        return subprocess.Popen(
            [*self.command, *resumed],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def answered(self) -> set[bytes]:
        """Keys of the answers on disk, each of which must be there once."""
        if self.run is None:
            return set()
        lines = (self.run / "completions.jsonl").read_bytes().splitlines()
        return {line[9:41] for line in lines if line.startswith(b'{"key": ') and line[-1:] == b"}"}

    def forget(self) -> None:
        """The next run is a new one."""
        self.run, self.older = None, set(self.runs.iterdir()) if self.runs.exists() else set()

    def new_run(self) -> None:
        """Find the folder that the first process of a run has made."""
        if self.run is None and self.runs.exists():
            begun = [path for path in self.runs.iterdir() if (path / "completions.jsonl").exists()]
            found = [path for path in begun if path not in self.older]
            self.run = max(found, key=lambda path: path.stat().st_mtime) if found else None

    def report(self) -> dict[str, Any]:
        """Of the run at hand, without what two equal runs may differ in."""
        assert self.run is not None
        report = json.loads((self.run / "report.json").read_text())
        del report["timestamp"], report["timings"]
        for experiment in report["experiments"]:
            del experiment["timings"]
        for test in report["tests"]:
            for name in TIMES:
                test.pop(name, None)
        return dict(report)


def processes(setup: Setup) -> dict[int, str]:
    """Command lines of a setup's living processes but its server."""
    found = {}
    for path in Path("/proc").iterdir():
        with suppress(OSError):
            if path.name.isdecimal() and f"{MARK}={setup.folder}".encode() in (
                (path / "environ").read_bytes().split(b"\0")
            ):
                found[int(path.name)] = (
                    (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                )
    return found


def victims(setup: Setup, process: subprocess.Popen[bytes]) -> Iterator[tuple[str, list[int], int]]:
    """What there is to kill: a name, process ids, the signal."""
    yield "controller", [process.pid], signal.SIGKILL
    yield "all", list(processes(setup)), signal.SIGKILL
    yield "TERM", [process.pid], signal.SIGTERM
    yield "INT", [process.pid], signal.SIGINT
    for pid, command in processes(setup).items():
        if "engine.shared" in command:
            yield "engine", [pid], signal.SIGKILL
        elif pid != process.pid and setup.workers:
            yield "worker", [pid], signal.SIGKILL
    if setup.server is not None and setup.server.process is not None:
        yield "server", [setup.server.process.pid], signal.SIGKILL


def leave_alone(setup: Setup) -> str:
    """Run to the end; what is not as it should be."""
    if setup.server is not None:
        setup.server.start()
    process = setup.start()
    text = process.communicate(timeout=300)[0].decode()
    setup.new_run()
    if process.returncode not in (0, 1) or "INTERNALERROR" in text or "Traceback" in text:
        return f"exit code {process.returncode}\n{text[-3000:]}"
    return ""


def measure(setup: Setup) -> str:
    """The report of a run that nobody kills, and how long it takes; what is wrong."""
    start = time.monotonic()
    if said := leave_alone(setup):
        return said
    setup.seconds = time.monotonic() - start
    setup.expected = setup.report()
    (setup.folder / "asked").unlink(missing_ok=True)
    return ""


def kill_once(setup: Setup, rng: random.Random, counts: dict[str, int]) -> tuple[str, list[str]]:
    """Start, kill something, look at what is left; a line, and what is wrong."""
    if setup.server is not None:
        setup.server.start()
    before, process, wrong = setup.answered(), setup.start(), list[str]()
    start, wanted = time.monotonic(), rng.randint(0, CASES[setup.kind] - len(before))
    later = rng.uniform(0, 0.5) if wanted else rng.uniform(0.1, 0.9) * setup.seconds
    while process.poll() is None and len(setup.answered()) < len(before) + wanted:
        time.sleep(0.02)
        setup.new_run()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=later)
    delay = time.monotonic() - start
    if process.poll() is not None:
        setup.new_run()
        text = process.communicate()[0].decode()
        return "", [f"it ended by itself with {process.returncode}\n{text[-2000:]}"] * (
            process.returncode not in (0, 1)
        )
    there = list(victims(setup, process))
    fewest = min(counts.get(name, 0) for name, _, _ in there)  # each kind as often as it can be
    name, pids, number = rng.choice([v for v in there if counts.get(v[0], 0) == fewest])
    counts[name] = counts.get(name, 0) + 1
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    killed = time.monotonic()
    try:
        text = process.communicate(timeout=90)[0].decode()
    except subprocess.TimeoutExpired:
        process.kill()
        text = process.communicate()[0].decode()
        wrong.append(f"it did not end in 90 s\n{text[-2000:]}")
    ended = time.monotonic()
    while (left := processes(setup)) and time.monotonic() - ended < GONE_S:
        time.sleep(0.05)
    if left:
        wrong.append(f"left behind: {left}")
    setup.new_run()
    after = setup.answered()
    if not before <= after:
        wrong.append(f"{len(before - after)} answers are lost")
    importing = process.returncode == -signal.SIGINT  # Python's own end, before pytest listens
    if "INTERNALERROR" in text or ("Traceback" in text and not importing):
        wrong.append(f"it says\n{text[-3000:]}")
    return (
        f"{setup.kind} -n {setup.workers}: {name} after {delay:.1f} s; exit code "
        f"{process.returncode}, ended {ended - killed:.1f} s and the last process "
        f"{time.monotonic() - ended:.1f} s later, {len(before)} -> {len(after)} answers"
    ), wrong


def finish(setup: Setup, kills: int) -> list[str]:
    """Leave the run alone, and compare it with the one that nobody killed."""
    wrong = [said] if (said := leave_alone(setup)) else []
    if wrong:
        return wrong
    report = setup.report()
    if report != setup.expected:
        wrong.append(f"the report is another one: {_differences(setup.expected, report)}")
    if len(setup.answered()) != CASES[setup.kind]:
        wrong.append(f"{len(setup.answered())} answers for {CASES[setup.kind]} cases")
    if setup.server is not None:
        asked = (setup.folder / "asked").read_text().splitlines()
        if len(asked) > CASES["served"] + 4 * kills:  # what was under way
            wrong.append(f"{len(asked)} requests were answered")
        (setup.folder / "asked").unlink()
    if setup.scratch:
        wrong.append(f"left behind: {setup.scratch}")
    return wrong


def _differences(one: Any, other: Any, at: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted(one.keys() | other.keys())
        return [d for n in names for d in _differences(one.get(n), other.get(n), f"{at}.{n}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        both = enumerate(zip(one, other, strict=True))
        return [d for i, (a, b) in both for d in _differences(a, b, f"{at}[{i}]")][:10]
    return [] if one == other else [f"{at}: {str(one)[:80]} / {str(other)[:80]}"]


def main() -> int:
    """Kill, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, counts, faults, done = random.Random(options.seed), dict[str, int](), 0, 0
    with tempfile.TemporaryDirectory() as name:
        setups = [
            Setup(kind, workers, Path(name) / f"{kind}-{workers}")
            for kind in CASES
            for workers in (2, 0)
        ]
        try:
            while done < options.kills:
                setup = setups[(options.seed + done // KILLS_OF_A_RUN) % len(setups)]
                if not setup.expected and (said := measure(setup)):
                    print(said)
                    return 1
                kills = min(KILLS_OF_A_RUN, options.kills - done)
                setup.forget()
                of_run = 0
                for _ in range(5 * kills):
                    if of_run == kills:
                        break
                    line, wrong = kill_once(setup, rng, counts)
                    of_run += bool(line)
                    print(
                        "\n  ".join([f"{done + of_run}: {line or 'ended first'}", *wrong]),
                        flush=True,
                    )
                    faults += len(wrong)
                wrong = finish(setup, of_run)
                faults += len(wrong)
                print(
                    "\n  ".join([f"{setup.kind} -n {setup.workers}: left alone", *wrong]),
                    flush=True,
                )
                done += max(of_run, 1)
        finally:
            for setup in setups:
                if setup.server is not None:
                    setup.server.stop()
    print(f"{done} kills ({counts}), {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
