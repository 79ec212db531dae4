"""The suite's own evals on the embedded model, as a newcomer runs them."""

import json
from pathlib import Path

import pytest

from pytest_llmprobe.report.schema import validate

ROOT = Path(__file__).parent.parent.parent


def same_bars(path, model):
    """A configuration in which a model must reach what the reference model must."""
    project = (ROOT / "pyproject.toml").read_text().partition("[tool.llmprobe.gates.reference]")[2]
    path.write_text(f"[gates.{model}]\n{project.partition(chr(10) + '[')[0]}")
    return path


@pytest.mark.parametrize(("model", "exit_code"), [("reference", 0), ("reference-random", 1)])
def test_the_smoke_profile(pytester, model, exit_code):
    bars = same_bars(pytester.path / "bars.toml", model)
    report_path = pytester.path / "report.json"
    result = pytester.runpytest_subprocess(
        "-n2",
        f"--rootdir={ROOT}",
        f"--model={model}",
        "--llmprobe-profile=smoke",
        f"--llmprobe-json={report_path}",
        f"--llmprobe-config={bars}",
        ROOT / "evals",
    )
    assert result.ret == exit_code, result.stdout.str()
    report = json.loads(report_path.read_text())
    validate(report)
    assert report["status"] == "complete"
    verdicts = {check["experiment"]: check["verdict"] for check in report["gate"]["checks"]}
    assert len(verdicts) == 12
    if model == "reference":
        assert {*verdicts.values()} == {"PASS"}
    else:
        assert verdicts["closed_book"] == "PASS"
        assert verdicts["single_needle"] == verdicts["json_format"] == "FAIL"
    assert report["model_info"]["dtype"] == "float32"
    by_name = {experiment["name"]: experiment for experiment in report["experiments"]}
    rate, chance = (by_name["single_needle"][key] for key in ("pass_rate", "chance"))
    assert rate > chance if model == "reference" else rate == 0
