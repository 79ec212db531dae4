"""What a run says before its first case."""

import json
from types import SimpleNamespace

import pytest

from pytest_llmprobe.models.registry import ModelSpec
from pytest_llmprobe.plugin.run_header import NEWEST, header_lines

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    def cases(suite):
        return [Case(str(n), f"say {n}") for n in range(3)]

    @pytest.mark.probe(cases=cases)
    def test_say(case, completion):
        assert completion.text
"""


@pytest.fixture
def asked(project, probe):
    project(EVAL, "return 'said'")
    return probe


def lines(run):
    return [line for line in run.text.splitlines() if line.startswith("llmprobe: ")]


def test_model_profile_and_cases_are_said_first(asked):
    run = asked()
    said = lines(run)
    assert "dtype auto, device auto" in said[0]
    assert said[1] == "llmprobe: profile ci, seed 0: 3 cases of 1 experiment"
    assert run.text.index(said[1]) < run.text.index("...")
    quiet = asked("-q")
    assert not any("profile ci" in line for line in lines(quiet))
    assert "(the last run took " in lines(asked())[1]


REPORT = {
    "model": "mine",
    "status": "complete",
    "config": {"profile": "ci"},
    "timings": {"total_s": 29.4},
    "tests": [{}] * 1200,
}


def said(tmp_path, *reports, **spec):
    """The two lines of a run of ``mine`` after some others, the newest one last."""
    for number, report in enumerate(reports):
        folder = tmp_path / "runs" / str(number)
        folder.mkdir(parents=True)
        text = report if isinstance(report, str) else json.dumps(report)
        (folder / "report.json").write_text(text, encoding="latin-1")
    options = SimpleNamespace(
        model="mine",
        spec=ModelSpec("mine", **{"source": "folder/of/mine"} | spec),
        suite=SimpleNamespace(profile="ci", seed=7),
        storage=tmp_path,
        replay=None,
    )
    plan = {name: SimpleNamespace(ids=range(600)) for name in ("a", "b")}
    return header_lines(SimpleNamespace(options=options, plan=plan))


def test_the_newest_whole_run_of_this_model_and_profile_says_its_time(tmp_path):
    others = ({"model": "other"}, {"status": "interrupted"}, {"config": {"profile": "smoke"}})
    reports = (REPORT, *(REPORT | other for other in others))
    assert said(tmp_path, *reports)[1] == (
        "llmprobe: profile ci, seed 7: 1,200 cases of 2 experiments "
        "(the last run took 29 s for 1,200)"
    )


@pytest.mark.parametrize(
    "damaged", ["{", "[]", "\xff", REPORT | {"timings": 3}, REPORT | {"config": []}]
)
def test_a_damaged_report_has_no_time(tmp_path, damaged):
    assert "took" not in said(tmp_path, damaged)[1]


def test_few_reports_are_looked_at(tmp_path):
    assert "took" not in said(tmp_path, REPORT, *["{}"] * NEWEST)[1]


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({}, "folder/of/mine, dtype auto, device auto"),
        ({"source": "org/mine", "revision": "v2"}, "org/mine@v2, dtype auto, device auto"),
        (
            {"quantization": "nf4", "adapter": "lora", "device_map": "auto", "dtype": "bfloat16"},
            "folder/of/mine, dtype bfloat16, device auto, quantization nf4, adapter lora",
        ),
        (
            {"source": "openai:m", "base_url": "http://host:1/v1?key=SECRET"},
            "at http://host:1/v1",
        ),
    ],
)
def test_where_the_model_is_and_how_it_is_loaded(tmp_path, spec, line):
    assert said(tmp_path, **spec)[0] == f"llmprobe: mine, {line}"


def test_a_name_cannot_steer_the_terminal(tmp_path):
    assert "\x1b" not in said(tmp_path, source="x\x1b[2Jy")[0]
