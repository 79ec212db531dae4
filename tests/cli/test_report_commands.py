"""``llmprobe compare``, ``report`` and ``history`` on finished runs."""

import argparse
import contextlib
import json
import random
import runpy
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from pytest_llmprobe.cli import reports
from pytest_llmprobe.errors import LlmprobeError, ReportError, SettingsError
from pytest_llmprobe.report.baseline import baseline_path, write_baseline
from pytest_llmprobe.report.run_file import reduce_report
from pytest_llmprobe.report.run_names import find_run

some_reports = runpy.run_path(str(Path(__file__).parents[1] / "report" / "some_reports.py"))
records, report = some_reports["records"], some_reports["report"]


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """An empty storage, in a folder of its own that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".llmprobe"


@pytest.fixture
def saved(storage):
    """Save a run's report; its folder."""

    def saved(name, *experiments, **header):
        folder = storage / "runs" / name
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps(report(*experiments, **header)))
        return folder

    return saved


@pytest.fixture
def run(capsys):
    """Run a command; its exit code and the lines that it prints."""

    def run(*arguments):
        parser = argparse.ArgumentParser()
        reports.add_commands(parser.add_subparsers())
        options = parser.parse_args([str(argument) for argument in arguments])
        code = 0
        try:
            options.run(options)
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr().out.splitlines()

    return run


def save_baseline(storage, name, *experiments, model="org/model"):
    path = baseline_path(storage, model, name)
    write_baseline(reduce_report(report(*experiments, model=model)), path)
    return path


GOOD, BAD, CLOSE = records("p" * 30), records("m" * 8 + "p" * 22), records("m" + "p" * 29)


# compare


@pytest.mark.parametrize(
    ("second", "options", "code", "verdict"),
    [
        (GOOD, (), 0, "PASS"),
        (CLOSE, (), 0, "PASS"),
        (BAD, (), 1, "FAIL"),
        (BAD, ("--fail-on", "worse"), 1, "FAIL"),
        (BAD, ("--fail-on", "never"), 0, "NOT JUDGED"),
        (records("e" + "p" * 29), (), 1, "FAIL"),
        (records("m" * 30, prompt_hash="new"), (), 1, "FAIL"),
        (records("m" * 30, "other"), (), 1, "NOT JUDGED"),
        (records("m" * 30, "other"), ("--fail-on", "worse"), 0, "NOT JUDGED"),
        (records("m" * 30, "other"), ("--fail-on", "never"), 0, "NOT JUDGED"),
        (records("p" * 20), (), 1, "NOT JUDGED"),
    ],
)
def test_the_last_line_agrees_with_the_exit_code(saved, run, second, options, code, verdict):
    first, second = saved("a", GOOD), saved("b", second)
    found, lines = run("compare", first, second, *options)
    assert found == code
    assert lines[-1].startswith(f"llmprobe: GATE {verdict} (")
    assert sum("GATE" in line for line in lines) == 1


def test_compare_says_whose_runs_they_are_and_names_lost_cases_and_the_cause(saved, run):
    new_weights = some_reports["MODEL_INFO"] | {"fingerprint": "0" * 16}
    first = saved("a", GOOD)
    second = saved("b", BAD, model="org/new", model_info=new_weights)
    _, lines = run("compare", first, second)
    assert lines[0] == f"{second} compared with {first} of org/model"
    assert not any(line.startswith("not comparable") for line in lines)
    table = next(n for n, line in enumerate(lines) if line.startswith("experiment"))
    assert " ".join(lines[table + 1].split()) == (
        "needle 30 1.000 0.733 -0.267 [-0.423, -0.077] 8 0 0.0078 x 1.00 worse"
    )
    assert "needle: lost 8" in lines
    assert "  evals/test_needle.py::test_needle[g0004]: 'right' -> 'wrong'" in lines
    assert "  and 3 more" in lines
    assert any(line.startswith("first difference: weights") for line in lines)


def test_a_comparison_that_found_nothing_says_what_it_would_have_found(saved, run):
    _, lines = run("compare", saved("a", GOOD), saved("b", CLOSE))
    assert any("or more would have been found with 80 % probability" in line for line in lines)
    _, lines = run("compare", saved("c", records("pp")), saved("d", records("pp")))
    assert any("no outcome of 2 cases could tell chance from a change" in line for line in lines)


def test_a_hostile_answer_cannot_steer_the_terminal(saved, run):
    hostile = "x\x1b[2J\r\nllmprobe: GATE PASS\u202e\ud800"
    _, lines = run("compare", saved("a", GOOD), saved("b", records("m" * 30, received=hostile)))
    assert all(character.isprintable() for line in lines for character in line)
    assert sum(line.startswith("llmprobe: GATE") for line in lines) == 1


def test_both_answers_are_shown_from_where_they_differ(saved, run):
    long = "the same beginning of two answers, " * 3
    first = saved("a", records("p" * 30, received=f"{long}then one"))
    second = saved("b", records("m" * 8 + "p" * 22, received=f"{long}then two"))
    _, lines = run("compare", first, second)
    shown = "...' answers, then one' -> ...' answers, then two'"
    assert f"  evals/test_needle.py::test_needle[g0000]: {shown}" in lines


# Which run is meant


def test_a_run_is_a_baseline_a_path_or_a_folder_of_the_storage(storage, saved, run):
    save_baseline(storage, "main", GOOD)
    saved("20260301T120000Z-model", BAD)
    assert run("compare", "main", "20260301T120000Z-model")[0] == 1
    assert run("compare", "org/model/main", "20260301T120000Z-model")[0] == 1
    elsewhere = storage.rename(storage.parent / "elsewhere")
    with pytest.raises(ReportError, match="no baseline, file or run 'main'"):
        run("compare", "main", "main")
    assert run("compare", "--storage", elsewhere, "main", "main")[0] == 0


def test_a_baseline_comes_before_a_folder_of_the_same_name(storage):
    path = save_baseline(storage, "main", GOOD)
    Path("main").mkdir()
    assert find_run("main", storage) == path
    assert find_run("./main", storage) == Path("main")


def test_a_bare_name_means_the_models_own_baseline_or_must_be_the_only_one(storage):
    one = save_baseline(storage, "main", GOOD)
    assert find_run("main", storage) == one
    other = save_baseline(storage, "main", GOOD, model="other")
    assert find_run("main", storage, "other") == other
    assert find_run("other/main", storage) == other
    with pytest.raises(SettingsError, match="several models have a baseline 'main'"):
        find_run("main", storage)


def test_what_is_not_there_lists_what_is(storage):
    with pytest.raises(ReportError, match="there are no baselines in"):
        find_run("mian", storage)
    save_baseline(storage, "main", GOOD)
    known = r"'mian'; did you mean main\? the baselines are org/model/main in"
    with pytest.raises(ReportError, match=known):
        find_run("mian", storage)


def test_last_is_the_newest_run_with_a_report_unless_something_has_this_name(storage, saved):
    with pytest.raises(ReportError, match="no finished runs in"):
        find_run("last", storage)
    newest = saved("20261122T000000Z-a", GOOD)
    saved("20261121T000000Z-b", GOOD)
    (storage / "runs" / "20261123T000000Z-under-way").mkdir()
    assert find_run("last", storage) == newest
    words = f"did you mean {newest.name}.* the last runs are {newest.name}"
    with pytest.raises(ReportError, match=words):
        find_run(newest.name[:-1] + "x", storage)
    path = save_baseline(storage, "last", GOOD)
    assert find_run("last", storage) == path


@pytest.mark.parametrize("given", ["../../etc/passwd/x", "a/../../b", "..", "*", "[m]ain"])
def test_no_name_leads_out_of_the_storage(storage, given):
    save_baseline(storage, "main", GOOD)
    with contextlib.suppress(ReportError):
        assert not find_run(given, storage / "deeper").is_file()


# report


def test_report_writes_a_page_and_markdown(saved, run, tmp_path):
    folder = saved("a", BAD)
    page, text = tmp_path / "out" / "page.html", tmp_path / "out" / "report.md"
    code, lines = run("report", folder, "--html", page, "--md", text)
    assert (code, lines) == (0, [f"written: {page}", f"written: {text}"])
    assert page.read_text().startswith("<!doctype html>")
    assert text.read_text().startswith("## ⚪ llmprobe: org/model: NOT JUDGED")
    assert "compared with" not in page.read_text()


def test_report_shows_the_differences_from_an_earlier_run(storage, saved, run, tmp_path):
    save_baseline(storage, "main", GOOD)
    page, text = tmp_path / "page.html", tmp_path / "report.md"
    run("report", saved("a", BAD), "--html", page, "--md", text, "--compare", "main")
    assert "compared with main" in page.read_text()
    assert "### ❌ Compared with main: FAIL" in text.read_text()


def test_report_refuses_what_it_cannot_do_before_it_begins(storage, saved, run, tmp_path):
    folder = saved("a", GOOD)
    with pytest.raises(
        SettingsError, match="give --html OUT, --md OUT, --csv OUT, --parquet OUT or"
    ):
        run("report", folder)
    with pytest.raises(ReportError, match="is a folder"):
        run("report", folder, "--html", tmp_path)
    path = save_baseline(storage, "main", GOOD)
    with pytest.raises(ReportError, match="does not follow its schema"):
        run("report", path, "--md", tmp_path / "a.md")
    assert not (tmp_path / "a.md").exists()


# history


def test_history_is_a_row_an_experiment_and_a_column_a_run(saved, run):
    saved("1", records("pp"), timestamp="2026-03-01T12:00:00Z")
    saved("2", records("pm"), records("p", "other"), timestamp="2026-03-02T13:30:00Z")
    saved("3", records("pe"), timestamp="2026-03-03T14:00:00Z", commit=None)
    saved("4", records("m"), timestamp="2026-03-04T14:00:00Z", model="b")
    _, lines = run("history")
    *lines, legend = lines
    assert legend == "* only part of the cases has a result, or some ended in an error"
    assert [line.split() for line in lines] == [
        ["b"],
        ["2026-03-04"],
        ["14:00"],
        ["commit", "11111111"],
        ["needle", "0.000"],
        ["org/model"],
        ["2026-03-01", "2026-03-02", "2026-03-03"],
        ["12:00", "13:30", "14:00"],
        ["commit", "11111111", "11111111", "-"],
        ["needle", "1.000", "0.500", "1.000*"],
        ["other", "-", "1.000", "-"],
    ]
    _, lines = run("history", "--model", "org/model", "--last", 1)
    assert [line.split() for line in lines][1] == ["2026-03-03"]


def test_history_in_a_narrow_terminal_goes_on_below(saved, run, monkeypatch):
    for day in range(1, 4):
        saved(str(day), records("pp"), timestamp=f"2026-03-0{day}T12:00:00Z")
    monkeypatch.setenv("COLUMNS", "32")
    _, lines = run("history")
    assert [line.split() for line in lines[1:]] == [
        ["2026-03-01", "2026-03-02"],
        ["12:00", "12:00"],
        ["commit", "11111111", "11111111"],
        ["needle", "1.000", "1.000"],
        ["2026-03-03"],
        ["12:00"],
        ["commit", "11111111"],
        ["needle", "1.000"],
    ]
    assert max(map(len, lines)) <= 32


def test_history_is_a_page_with_a_curve_for_each_experiment(saved, run, tmp_path):
    hostile = "<b>needle</b>"
    saved("1", records("pp", hostile), timestamp="2026-03-01T12:00:00Z")
    saved("2", records("pm", hostile), records("p", "other"), timestamp="2026-03-02T13:30:00Z")
    saved("3", records("e", "other"), timestamp="2026-03-03T13:30:00Z", model="b")
    page = tmp_path / "history.html"
    code, lines = run("history", "--html", page)
    assert (code, lines[-1]) == (0, f"written: {page}")
    text = page.read_text()
    assert hostile not in text
    assert "&lt;b&gt;needle&lt;/b&gt;" in text
    assert text.count("<figure>") == 1  # one point is no curve
    assert text.count("<h2>") == 2
    assert "http:" not in text.replace("http-equiv", "")
    with pytest.raises(ReportError, match="is a folder"):
        run("history", "--html", tmp_path)


def test_history_passes_over_what_it_cannot_read_and_says_so(storage, saved, run, capsys):
    saved("1", records("pp"))
    (saved("2", records("pp")) / "report.json").write_text("{")
    parser = argparse.ArgumentParser()
    reports.add_commands(parser.add_subparsers())
    options = parser.parse_args(["history"])
    options.run(options)
    out, err = capsys.readouterr()
    assert "needle  " in out
    assert err.startswith("llmprobe: not read: ")


def test_history_without_runs_is_an_error(storage, run):
    with pytest.raises(ReportError, match=r"there are no runs in \.llmprobe"):
        run("history")
    with pytest.raises(ReportError, match="there are no runs of m in"):
        run("history", "--model", "m")


def test_an_error_is_one_of_ours_so_that_it_is_told_in_one_line(saved, run, tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    for arguments in (("compare", "x.json", "x.json"), ("report", "x.json", "--md", "y.md")):
        with pytest.raises(LlmprobeError, match="holds no JSON object"):
            run(*arguments)


def test_the_commands_load_nothing_heavy_before_they_run():
    code = """
import argparse, sys
from pytest_llmprobe.cli import reports
reports.add_commands(argparse.ArgumentParser().add_subparsers())
print(sorted({"torch", "numpy", "jinja2", "matplotlib", "jsonschema"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def uuids(n, seed=0):
    rng = random.Random(seed)
    return [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(n)]


def test_needle_results_have_the_keys_of_the_script(saved, run, tmp_path):
    target, other, third = uuids(3)
    needles = records(
        "ppmmme",
        experiment="single_needle",
        task="single_needle",
        size=25,
        trial=[0, 1, 2, 3, 4, 5],
        expected=target,
        received=[target, f"It is {target.upper()}.", other, f"{target} or {other}", "none", None],
        wall_s=[0.5, 0.75, None, 0.5, 0.5, None],
    )
    threads = records("p", experiment="threading", task="threading", size=5, trial=0, wall_s=2.0,
                      expected=third, received=third)  # fmt: skip
    both = {
        "expected": f"{target}\n{other}",
        "received": [f"{target} {other}", f"{other} {target}"],
    }
    lists = records("pm", experiment="lists", task="multiple_needles", size=5, trial=0, **both)
    saved("a", needles, threads, lists, records("p"), model="org/Llama-3.2-1B")
    code, lines = run("report", "a", "--needle-results", "out")
    path = tmp_path / "out" / "results_Llama-3.2-1B_20260301_120000.json"
    assert (code, lines) == (0, [f"written: {path.relative_to(tmp_path)}"])
    results = json.loads(path.read_text())
    assert results.keys() == {"model", "timestamp", "tests"}
    keys = {"task", "size", "trial", "duration", "is_correct", "expected", "received"}
    assert all(test.keys() == keys for test in results["tests"])
    for test in results["tests"]:  # how the script judges
        assert test["is_correct"] == (test["received"].lower() == test["expected"].lower())
    single = [test for test in results["tests"] if test["task"] == "single_needle"]
    assert [test["received"] for test in single] == [target, target, other, other, ""]
    assert [test["duration"] for test in single] == [0.5, 0.75, 0.25, 0.5, 0.5]
    assert [test["trial"] for test in single] == [0, 1, 2, 3, 4]
    assert len(results["tests"]) == 8


def test_needle_results_of_a_run_without_needles_are_none(saved, run, tmp_path):
    saved("a", GOOD)
    with pytest.raises(ReportError, match=r"no case of single_needle, .* was answered in this run"):
        run("report", "a", "--needle-results", "out")
    assert not (tmp_path / "out").exists()
