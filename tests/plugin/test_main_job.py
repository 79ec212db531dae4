"""The suite's own evals on the embedded model, as a newcomer runs them."""

import json
from pathlib import Path

from pytest_llmprobe.cli.init import configuration
from pytest_llmprobe.report.schema import validate

ROOT = Path(__file__).parent.parent.parent
FAMILIES = ("needle", "haystack", "json_format")


def test_a_model_without_abilities_fails(pytester):
    """The smoke profile; that the reference model passes it, the README's first command shows."""
    bars = pytester.path / "bars.toml"  # those of the reference model
    bars.write_text(configuration(FAMILIES).replace("gates.reference", "gates.reference-random"))
    report_path = pytester.path / "report.json"
    result = pytester.runpytest_subprocess(
        "-n2",
        f"--rootdir={ROOT}",
        "--model=reference-random",
        "--llmprobe-profile=smoke",
        f"--llmprobe-json={report_path}",
        f"--llmprobe-config={bars}",
        *(ROOT / "evals" / family for family in FAMILIES),
    )
    assert result.ret == 1, result.stdout.str()
    report = json.loads(report_path.read_text())
    validate(report)
    assert report["status"] == "complete"
    verdicts = {check["experiment"]: check["verdict"] for check in report["gate"]["checks"]}
    assert verdicts.pop("closed_book") == "PASS"
    assert verdicts.keys() >= {"single_needle", "threading", "text_needle", "json_format"}
    assert {*verdicts.values()} == {"FAIL"}
    assert report["model_info"]["dtype"] == "float32"
    by_name = {experiment["name"]: experiment for experiment in report["experiments"]}
    assert by_name["single_needle"]["pass_rate"] == 0
