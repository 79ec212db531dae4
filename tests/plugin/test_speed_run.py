"""evals/speed: measured where it is asked for, by nothing else, in one process."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SPEED = ROOT / "evals" / "speed"


def collected(pytester, *arguments):
    result = pytester.runpytest_inprocess(
        "--collect-only",
        "-q",
        f"--rootdir={ROOT}",
        "-p",
        "no:xdist",
        "--model=reference-random",
        "--llmprobe-profile=smoke",
        *arguments,
    )
    return {line.split("::")[1].split("[")[0] for line in result.outlines if "::test_" in line}


@pytest.mark.parametrize(
    ("arguments", "measured"),
    [
        ([ROOT / "evals" / "standard", SPEED], True),
        ([SPEED / "test_speed.py::test_decode"], True),
        ([SPEED.parent, "-m", "speed"], True),
        ([SPEED.parent, "-k", "perplexity or decode"], False),
    ],
)
def test_speed_is_measured_on_request(pytester, arguments, measured):
    assert ("test_decode" in collected(pytester, *arguments)) == measured


def run(pytester, *arguments):
    path = pytester.path / "report.json"
    result = pytester.runpytest_subprocess(
        *("-p", "pytest_benchmark.plugin", f"--rootdir={ROOT}", f"--llmprobe-json={path}"),
        *("--model=reference-random", "--llmprobe-profile=smoke", "--llmprobe-limit=1"),
        *("--benchmark-storage=kept", SPEED, *arguments),
    )
    return result, json.loads(path.read_text())


def test_a_round_is_saved_compared_and_in_the_report(pytester, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # that of these tests
    result, report = run(pytester, "-p", "no:xdist", "--benchmark-save=before")
    assert result.ret == 0, result.stdout.str()
    scores = {e["name"]: set(e["scores"]) for e in report["experiments"]}
    assert scores == {
        "prefill": {"first_token_s", "prefill_tokens_per_s", "peak_memory_mib"},
        "decode": {"answer_s", "decode_tokens_per_s", "peak_memory_mib"},
    }
    (saved,) = (pytester.path / "kept").rglob("*before.json")
    benchmarks = json.loads(saved.read_text())["benchmarks"]
    rates = {b["name"].partition("[")[0]: b["extra_info"] for b in benchmarks}
    assert rates["test_decode"]["decode_tokens_per_s"] > 0
    (test,) = (t for t in report["tests"] if "test_decode" in t["id"])
    assert rates["test_decode"] == test["scores"]


def test_workers_measure_nothing(pytester):
    _, report = run(pytester, "-n1")
    assert {test["outcome"] for test in report["tests"]} == {"skipped"}
    assert "speed is measured by one process: -n 0" in json.dumps(report["tests"])
