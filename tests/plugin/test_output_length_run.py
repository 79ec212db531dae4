"""The length probes of the reference model know what they should, and their control nothing."""

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_a_late_state_knows_how_much_remains_and_shuffled_labels_do_not(pytester):
    path = pytester.path / "report.json"
    result = pytester.runpytest_subprocess(
        "-n2",
        f"--rootdir={ROOT}",
        f"--llmprobe-json={path}",
        "--llmprobe-profile=smoke",
        ROOT / "evals" / "output_length",
    )
    assert result.ret == 0, result.stdout.str()
    (experiment,) = json.loads(path.read_text())["experiments"]
    assert (experiment["passed"], experiment["missed"]) == (1, 0)
    (point,) = experiment["summary"]["skill_by_depth_mlp_held_out_sample"]
    low, high = point["ci95"]
    assert 0 < low < point["mean"] < high
    assert point["control"] <= 0
