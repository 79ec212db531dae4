"""``llmprobe bars``: a run's rates become the bars of its model, and the next run is judged."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from scipy.stats import binom

from pytest_llmprobe.cli import main
from pytest_llmprobe.models.settings import read_gates, read_settings
from pytest_llmprobe.report.plan import Bar
from pytest_llmprobe.statistics.intervals import wilson

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

some_reports = runpy.run_path(str(Path(__file__).parents[1] / "report" / "some_reports.py"))
records, report = some_reports["records"], some_reports["report"]
CHECK = {
    "experiment": "closed_book",
    "metric": "pass_rate",
    "bar": 0.95,
    "rule": "significant",
    "kind": "min",
    "value": 1.0,
    "verdict": "PASS",
    "reason": "-",
}


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Write a report into the current folder; its path."""
    monkeypatch.chdir(tmp_path)

    def saved(*experiments, checks=(), **header):
        made = report(*experiments, **header)
        for experiment in made["experiments"]:
            experiment["gate"] = [c for c in checks if c["experiment"] == experiment["name"]]
        Path("report.json").write_text(json.dumps(made))
        return "report.json"

    return saved


@pytest.fixture
def run(capsys):
    def run(*arguments):
        code = main(["bars", *arguments])
        found = capsys.readouterr()
        return code, found.out, found.err

    return run


def test_the_lower_ends_are_written_rounded_down(saved, run):
    path = saved(records("p" * 18 + "m" * 2, "needle"), records("p" * 9 + "m" * 11, "threads"))
    code, out, _ = run(path)
    assert code == 0
    assert "llmprobe.toml: 2 bars of org/model" in out
    gates = read_gates(read_settings(Path("llmprobe.toml")), "org/model", Path())
    for name, passed in (("needle", 18), ("threads", 9)):
        low, bar = wilson(passed, 20)[0], gates["org/model"][name]
        assert bar == Bar(pass_rate=int(low * 100) / 100, of_model=True)
        assert bar.pass_rate <= low < bar.pass_rate + 0.01


def test_an_existing_project_keeps_all_but_the_table(saved, run):
    before = Path(__file__).parents[2].joinpath("pyproject.toml").read_bytes()
    path = saved(records("p" * 20, "single_needle"), records("p" * 20, "new"), model="reference")
    Path("pyproject.toml").write_bytes(before)
    assert run(path)[0] == 0
    after = Path("pyproject.toml").read_bytes()
    assert not Path("llmprobe.toml").exists()
    lines = [line for line in after.splitlines() if line not in before.splitlines()]
    assert lines == [b"single_needle = { pass_rate = 0.83 }", b"new = { pass_rate = 0.83 }"]
    gone = [line for line in before.splitlines() if line not in after.splitlines()]
    assert gone == [b"single_needle = { pass_rate = 0.90 }"]
    assert run(path)[0] == 0
    assert Path("pyproject.toml").read_bytes() == after  # the same again


def test_print_writes_nothing(saved, run):
    path = saved(records("p" * 20, "needle"))
    code, out, _ = run(path, "--print")
    assert code == 0
    assert tomllib.loads(out) == {"gates": {"org/model": {"needle": {"pass_rate": 0.83}}}}
    assert [p.name for p in Path().iterdir()] == [path]


def test_the_named_file_is_written_in_the_form_that_it_has(saved, run):
    path = saved(records("p" * 20, "needle"))
    Path("deep").mkdir()
    for name, prefix in (("other.toml", ()), ("deep/pyproject.toml", ("tool", "llmprobe"))):
        assert run(path, "--config", name)[0] == 0
        found = tomllib.loads(Path(name).read_text())
        for table in (*prefix, "gates", "org/model"):
            found = found[table]
        assert found == {"needle": {"pass_rate": 0.83}}


def test_each_bar_says_what_it_finds_and_how_often_it_is_wrong(saved, run):
    _, out, _ = run(saved(records("p" * 18 + "m" * 2, "needle")), "--print")
    found = re.search(r"# needle: 20 cases: 0\.69 fails a true rate of (\S+) in 80 %.*0\.900", out)
    alarm = re.search(r"on other cases in (\S+)%", out)
    assert binom.cdf(13, 20, float(found[1])) >= 0.8 > binom.cdf(13, 20, float(found[1]) + 0.011)
    assert float(alarm[1]) == pytest.approx(100 * binom.cdf(13, 20, 0.9), abs=0.05)


def test_what_is_no_ground_for_a_verdict_gets_no_bar(saved, run):
    path = saved(records("p" * 20, "needle"), records("p" * 20, "probed"))
    made = json.loads(Path(path).read_text())
    next(e for e in made["experiments"] if e["name"] == "probed")["judged"] = False
    Path(path).write_text(json.dumps(made))
    _, out, _ = run(path)
    assert "# probed: no bar, its marker says that it is no ground for a verdict" in out
    assert "probed" not in Path("llmprobe.toml").read_text()


def test_what_gets_no_bar_is_said_with_the_reason(saved, run):
    Path("llmprobe.toml").write_text("[gates.'org/model']\noff = false # by hand\n")
    path = saved(
        records("p" * 20, "needle"),
        records("m" * 20, "lost"),
        records("p" * 19 + "s", "skipped"),
        records("p", "one"),
        records("p" * 20, "off"),
        records("p" * 20, "closed_book"),
        checks=[CHECK],
    )
    code, out, _ = run(path)
    assert code == 0
    for line in (
        "lost: no bar, 0 of 20 passed",
        "skipped: no bar, 19 of 20 cases were measured",
        "one: no bar, 1 cases are too few",
        "off: stays false",
        "closed_book: its eval file has a bar for every model",
    ):
        assert f"# {line}" in out.splitlines()
    text = Path("llmprobe.toml").read_text()
    assert "off = false # by hand\nneedle = { pass_rate = 0.83 }\n" in text
    assert text.count("=") == 3


@pytest.mark.parametrize(
    ("experiments", "header", "words"),
    [
        ([records("p" * 20)], {"status": "interrupted"}, "the run was interrupted"),
        ([records("e" + "p" * 20)], {}, "1 cases of needle ended in an error"),
        ([records("m" * 20)], {}, "no experiment of this run has a pass rate to keep"),
    ],
)
def test_a_run_that_is_no_measure_is_refused(saved, run, experiments, header, words):
    code, _, err = run(saved(*experiments, **header))
    assert code == 4
    assert words in err
    assert not Path("llmprobe.toml").exists()


@pytest.mark.parametrize("text", ["gates = 1", "[gates", "[[gates.'org/model']]\nx = 1"])
def test_a_file_that_cannot_be_changed_stays(saved, run, text):
    Path("llmprobe.toml").write_text(text)
    code, _, err = run(saved(records("p" * 20)))
    assert code == 4
    assert "gates" in err or "llmprobe.toml" in err
    assert Path("llmprobe.toml").read_text() == text


def test_from_a_run_to_its_bars_and_to_a_red_one(pytester, capsys, monkeypatch):
    monkeypatch.chdir(pytester.path)
    pytester.makeconftest(
        """
        import pytest
        from pytest_llmprobe import Engine, ScriptedModel

        @pytest.fixture(scope="session")
        def engine():
            return Engine(ScriptedModel(lambda prompt: prompt.split()[-1]))
        """
    )
    text = """
        import pytest
        from pytest_llmprobe import Case

        @pytest.mark.probe(cases=[Case(f"c{n}", f"say {n}", str(n)) for n in range(40)])
        def test_echo(case, completion):
            assert int(completion.text) >= WRONG
    """
    for wrong, verdict, code in ((0, "NOT JUDGED", 0), (0, "PASS", 0), (20, "FAIL", 1)):
        pytester.makepyfile(test_eval=text.replace("WRONG", str(wrong)))
        result = pytester.runpytest_inprocess("-p", "no:xdist")
        assert int(result.ret) == code
        assert re.search(rf"^llmprobe: GATE {verdict} ", result.stdout.str(), re.MULTILINE)
        if verdict == "NOT JUDGED":
            (folder,) = pytester.path.glob(".llmprobe/runs/*")
            assert main(["bars", folder.name]) == 0
            assert "echo = { pass_rate = 0.91 }" in capsys.readouterr().out
