"""Four workers on one model: one copy of the weights against four, time and memory.

    pytest tests/benchmarks/test_shared_engine_speed.py -n 0 -s

Whole runs, start-up included, interleaved; medians. Memory is the proportional set size of all
processes of a run together, /proc/PID/smaps_rollup, at its highest: shared pages count once. The
model is cast to bfloat16 for the memory, because float32 weights are mapped from the file, which
copies share anyway.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[2]
EVALS = ("evals/needle/test_single_needle.py", "evals/json_format/test_json_format.py")
REPEATS = 3
LOOK_S = 0.25


def family(pid):
    """Our processes: those that carry the run's mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"LLMPROBE_BENCHMARK={pid}".encode() in (path / "environ").read_bytes():
                found.append(path)
        except OSError:
            continue
    return found


def pss_mb(path):
    try:
        lines = (path / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0, False
    pss = next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0) / 1024
    try:
        return pss, "libtorch_cpu" in (path / "maps").read_text()
    except OSError:
        return pss, False


def run(tmp_path, engine, *options):
    """Seconds, CPU seconds, most megabytes and most processes with torch of one run."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "4"),
            *(f"--llmprobe-engine={engine}", f"--llmprobe-storage={tmp_path}", *EVALS, *options),
        ],
        cwd=ROOT,
        env=os.environ | {"LLMPROBE_BENCHMARK": mark},
        stdout=subprocess.DEVNULL,
    )
    most = models = 0
    while process.poll() is None:
        found = [pss_mb(path) for path in family(mark)]
        most = max(most, sum(mb for mb, _ in found))
        models = max(models, sum(torch for _, torch in found))
        time.sleep(LOOK_S)
    assert process.returncode == 0
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime - before.ru_utime, most, models


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_four_workers_with_one_copy_of_the_weights(tmp_path, dtype):
    options = (f"--llmprobe-dtype={dtype}", "--llmprobe-gate=none")
    runs = {"shared": [], "process": []}
    for _ in range(REPEATS):
        for engine, of_it in runs.items():
            of_it.append(run(tmp_path, engine, *options))
    for engine, of_it in runs.items():
        wall, cpu, most, models = (median(values) for values in zip(*of_it, strict=True))
        print(
            f"\n{dtype}, -n 4, {engine}: {wall:.1f} s, {cpu:.1f} CPU s of waited children, "
            f"{most:.0f} MB PSS at most, {models:.0f} processes with torch"
        )
    ratio = median(p[0] / s[0] for s, p in zip(runs["shared"], runs["process"], strict=True))
    print(f"{dtype}: four copies take {ratio:.2f} times as long as one")
