"""What a case costs beside the model: collection, planning, record, report; and an idle plugin.

    pytest tests/benchmarks/test_cost_per_case.py -n 0 -s

Scripted cases with the plugin, passing tests of plain pytest with the plugin idle and without it,
each run in a process of its own that loads no other plugin. A run of one test is start-up, and is
taken off; so is what as many plain tests cost. CPU seconds of user and system, peak of the process.
"""

import os
import subprocess
import sys

import pytest

SIZES = (1_000, 10_000, 30_000, 100_000)

CASES = """
import pytest
from pytest_llmprobe import Case, Engine, ScriptedModel

@pytest.fixture(scope="session")
def engine():
    return Engine(ScriptedModel(lambda prompt: prompt.split()[-1]))

def cases():
    for number in range({size}):
        text, metadata = f"word{{number}}", {{"task": "echo", "size": number % 7, "trial": number}}
        yield Case(f"g{{number // 10}}/c{{number % 10}}", "say " * 50 + text, text, metadata, 0.1)

@pytest.mark.probe(cases=cases, max_new_tokens=20)
@pytest.mark.gate(pass_rate=0.5)
def test_echo(case, completion, score):
    score("length", len(completion.text))
    assert completion.text == case.target
"""

PLAIN = """
import pytest

@pytest.mark.parametrize("case", [f"g{{n // 10}}/c{{n % 10}}" for n in range({size})])
def test_plain(case):
    assert case
"""

# The peak in the resource usage of a child is at least that of its parent.
PEAK = """
import atexit
from pathlib import Path

def leave_peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    Path("peak").write_text(next(line.split()[1] for line in lines if line.startswith("VmHWM")))

atexit.register(leave_peak)
"""

KINDS = {
    "cases": (CASES, ("-p", "pytest_llmprobe.plugin")),
    "idle": (PLAIN, ("-p", "pytest_llmprobe.plugin")),
    "without": (PLAIN, ("-p", "no:llmprobe")),
}


def cost(folder, kind, size):
    """CPU seconds and MB of one run."""
    here = folder / f"{kind}-{size}"
    here.mkdir()
    suite, plugins = KINDS[kind]
    (here / "conftest.py").write_text(PEAK)
    (here / "pytest.ini").write_text("[pytest]\n")
    (here / "test_suite.py").write_text(suite.format(size=size))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugins]
    with (here / "output").open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=here,
            env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (here / "output").read_text()[-2000:]
    return usage.ru_utime + usage.ru_stime, int((here / "peak").read_text()) / 1024


@pytest.fixture(scope="module")
def start_up(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start-up")
    return {kind: cost(folder, kind, 1) for kind in KINDS}


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("size", SIZES)
def test_cost_beside_plain_pytest(size, start_up, tmp_path, capsys):
    measure = {kind: cost(tmp_path, kind, size) for kind in KINDS}
    found = {}
    for kind, (seconds, peak) in measure.items():
        first, base = start_up[kind]
        found[kind] = ((seconds - first) * 1000 / size, (peak - base) * 1024 / size)
    ms, kb = found["without"]
    with capsys.disabled():
        print()
        for kind, (seconds, peak) in measure.items():
            print(
                f"{size:7,} {kind:8} {seconds:6.1f} s, start-up {start_up[kind][0]:4.1f} s; "
                f"{found[kind][0] - ms:6.3f} ms a case beyond plain pytest's {ms:.3f}; "
                f"{peak:5.0f} MB, {found[kind][1] - kb:5.1f} kB a case beyond {kb:.1f}"
            )
