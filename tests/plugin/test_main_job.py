"""The suite's own evals on the embedded model, as a newcomer runs them."""

import json
from pathlib import Path

import pytest

from pytest_llmprobe.report.schema import validate

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(("model", "exit_code"), [("reference", 0), ("reference-random", 1)])
def test_the_smoke_profile(pytester, model, exit_code):
    report_path = pytester.path / "report.json"
    result = pytester.runpytest_subprocess(
        "-n2",
        f"--rootdir={ROOT}",
        f"--model={model}",
        "--llmprobe-profile=smoke",
        f"--llmprobe-json={report_path}",
        ROOT / "evals",
    )
    assert result.ret == exit_code, result.stdout.str()
    report = json.loads(report_path.read_text())
    validate(report)
    assert report["status"] == "complete"
    assert report["model_info"]["dtype"] == "float32"
    by_name = {experiment["name"]: experiment for experiment in report["experiments"]}
    rate, chance = (by_name["single_needle"][key] for key in ("pass_rate", "chance"))
    assert rate > chance if model == "reference" else rate == 0
