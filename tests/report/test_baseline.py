"""Baselines: what they keep, where they lie, and that no file or name can do harm."""

import json
import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from some_reports import records, report, run

from pytest_llmprobe.errors import ReportError, SettingsError
from pytest_llmprobe.report.baseline import (
    baseline_folder,
    baseline_path,
    with_noise,
    write_baseline,
)
from pytest_llmprobe.report.run_file import read_run, reduce_report

many = settings(deadline=None, max_examples=60)


def written(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def stored(tmp_path, baseline):
    write_baseline(baseline, tmp_path / "b.json")
    return json.loads((tmp_path / "b.json").read_text())


# What is kept


def test_a_baseline_is_the_same_after_a_journey_through_its_file(tmp_path):
    baseline = with_noise(run(records("pmes", scores={"f1": 0.1 + 0.2}, group="g")), [run()])
    path = tmp_path / "deep" / "b.json"
    write_baseline(baseline, path)
    assert read_run(path) == baseline


texts = st.text(st.characters(codec=None), max_size=30)


@many
@given(texts, texts, st.floats(-1e9, 1e9), st.floats(0, 1e6))
def test_any_answer_and_score_survives_the_file(tmp_path_factory, received, name, score, seconds):
    baseline = run(records("p", received=received, scores={name: score}, duration=seconds))
    path = tmp_path_factory.getbasetemp() / "b.json"
    write_baseline(baseline, path)
    assert read_run(path) == baseline
    (case,) = baseline.cases.values()
    assert (case.received, case.scores) == (received, {name: score})


def test_a_report_a_run_folder_and_a_baseline_read_alike(tmp_path):
    made = report(records("pm"))
    folder = tmp_path / "run"
    folder.mkdir()
    written(folder / "report.json", made)
    write_baseline(reduce_report(made), tmp_path / "b.json")
    assert read_run(folder) == read_run(folder / "report.json") == read_run(tmp_path / "b.json")


def test_each_case_is_a_line_in_order_so_that_git_shows_what_changed(tmp_path):
    path = tmp_path / "b.json"
    write_baseline(run(records("pm", "b"), records("pp", "a")), path)
    lines = path.read_text().splitlines()
    start = lines.index('"cases": [')
    cases = [json.loads(line.rstrip(",")) for line in lines[start + 1 : -1]]
    assert [case["id"] for case in cases] == sorted(case["id"] for case in cases)
    assert len(cases) == 4
    assert list(json.loads(path.read_text())) == [
        *sorted(json.loads(path.read_text()))[1:],
        "cases",
    ]


def test_two_runs_that_differ_in_nothing_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_baseline(run(records("pmpm"), records("pp", "other")), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_case_takes_a_few_hundred_bytes_whatever_the_answer(tmp_path):
    sizes = []
    for n in (100, 200):
        write_baseline(run(records("p" * n, received="x" * 9_000)), tmp_path / "b.json")
        sizes.append((tmp_path / "b.json").stat().st_size)
    assert (sizes[1] - sizes[0]) / 100 < 420


def test_nothing_of_a_report_but_what_is_compared_is_kept(tmp_path):
    kept = stored(tmp_path, run(records("m", expected="SECRET", explanation="SECRET")))
    assert "SECRET" not in json.dumps(kept)
    assert kept["config"]["seed"] == 0
    assert kept["model_info"]["fingerprint"] == "f" * 16
    assert kept["cases"] == [
        {
            "id": "evals/test_needle.py::test_needle[g0000]",
            "experiment": "needle",
            "outcome": "missed",
            "prompt_hash": "0" * 16,
            "received": "wrong",
            "duration": 0.25,
            "batch_size": 4,
        }
    ]


# Noise


def test_the_noise_is_how_far_repeated_runs_are_apart():
    first, second, third = (run(records(o), records("pp", "b")) for o in ("pppm", "ppmm", "pppp"))
    assert with_noise(first, [second, third]).noise == {"needle": 0.25, "b": 0.0}
    often = with_noise(first, [second, third] * 20).noise["needle"]
    assert often < 0.27  # it grows with no number of repeats
    assert with_noise(first, []).noise == {}
    assert with_noise(first, [run(records("pppp", "other"))]).noise == {}


# Names and places


@pytest.mark.parametrize("name", ["main", "v1.2", "2026-03-01", "A_b-c.json", "x" * 100])
def test_a_plain_name_is_a_file_of_the_model(tmp_path, name):
    path = baseline_path(tmp_path, "reference", name)
    assert path == tmp_path / "baselines" / "reference" / f"{name}.json"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/etc",
        ".a",
        "-x",
        "a b",
        "ä",
        "a\n",
        "a\0",
        "C:x",
        "x" * 101,
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(SettingsError, match="cannot name a baseline"):
        baseline_path(tmp_path, "reference", name)


@many
@given(st.text(st.characters(codec=None), max_size=200), st.text(max_size=200))
def test_every_model_has_a_folder_of_its_own_inside_the_storage(tmp_path_factory, one, other):
    storage = tmp_path_factory.getbasetemp()
    folder = baseline_folder(storage, one)
    assert folder.parent == storage / "baselines"
    assert folder.name not in ("", ".", "..")
    assert len(folder.name) < 100
    assert (folder == baseline_folder(storage, other)) == (one == other)


def test_models_whose_names_look_alike_do_not_share_a_folder(tmp_path):
    names = ["org/name", "org-name", "org name", "./org/name", "org/name@main"]
    assert len({baseline_folder(tmp_path, name) for name in names}) == len(names)


# Writing


def test_a_failed_write_leaves_the_old_baseline(tmp_path, monkeypatch):
    path = tmp_path / "b.json"
    write_baseline(run(records("p")), path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ReportError, match="cannot be written: No space left on device"):
        write_baseline(run(records("m")), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["b.json"]


# Reading what others wrote


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "it is no JSON"),
        ("", "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ('{"noise": NaN}', "NaN is no JSON"),
        ("[1]", "holds no JSON object"),
        ("{}", "it has no 'model'"),
        ('{"kind": "llmprobe baseline"}', "save it again"),
        ('{"model": 1, "timestamp": "t", "status": "complete"}', "it has no 'model'"),
    ],
)
def test_what_is_neither_report_nor_baseline_is_refused(tmp_path, text, words):
    path = written(tmp_path / "x.json", text)
    with pytest.raises(ReportError, match=words) as caught:
        read_run(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ReportError, match=r"absent.json cannot be read: No such file"):
        read_run(tmp_path / "absent.json")
    with pytest.raises(ReportError, match=r"report.json cannot be read"):
        read_run(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ReportError, match="it is no JSON"):
        read_run(tmp_path / "x.json")


def test_a_baseline_of_another_format_says_what_to_do(tmp_path):
    data = stored(tmp_path, run(records("p"))) | {"schema_version": "9.0"}
    with pytest.raises(ReportError, match=r"format '9.0', and this version reads '1.0': save it"):
        read_run(written(tmp_path / "x.json", data))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("id", 3, "case 1 has no 'id'"),
        ("experiment", None, "case 1 has no 'experiment'"),
        ("outcome", "good", "unknown outcome 'good'"),
        ("group", 3, "'group' that is no text"),
        ("received", ["x"], "'received' that is no text"),
        ("prompt_hash", 3, "'prompt_hash' that is no text"),
        ("scores", {"f1": "high"}, "'f1' that is no number"),
        ("scores", {"f1": True}, "'f1' that is no number"),
        ("scores", {"f1": 10**400}, "'f1' that is no number"),
        ("scores", [1], "numbers by name"),
        ("duration", "long", "'duration' that is no number"),
        ("batch_size", "auto", "'batch_size' that is no number"),
    ],
)
def test_a_wrong_field_of_a_case_is_named(tmp_path, field, value, words):
    data = stored(tmp_path, run(records("p")))
    data["cases"][0][field] = value
    with pytest.raises(ReportError, match=words):
        read_run(written(tmp_path / "x.json", data))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cases": {}}, "'cases' is no list"),
        ({"cases": [1]}, "case 1 is no object"),
        ({"config": None}, "'config' is no object"),
        ({"commit": "abc"}, "'commit' is no object"),
        ({"experiments": []}, "'experiments' is no object"),
        ({"experiments": {"a": 1}}, "'a' has no 'collected'"),
        ({"experiments": {"a": {"n": 1}}}, "'a' has no 'collected'"),
        ({"noise": {"a": "b"}}, "'a' that is no number"),
    ],
)
def test_a_wrong_part_of_a_baseline_is_named(tmp_path, change, words):
    data = stored(tmp_path, run(records("p"))) | change
    with pytest.raises(ReportError, match=words):
        read_run(written(tmp_path / "x.json", data))


@pytest.mark.parametrize(
    ("field", "value"), [("n", "many"), ("timings", None), ("timings", {"p50_s": "fast"})]
)
def test_a_wrong_field_of_an_experiment_is_named(tmp_path, field, value):
    data = stored(tmp_path, run(records("p")))
    data["experiments"]["needle"][field] = value
    with pytest.raises(ReportError, match="needle"):
        read_run(written(tmp_path / "x.json", data))


def test_a_case_that_is_there_twice_is_refused(tmp_path):
    data = stored(tmp_path, run(records("p")))
    data["cases"] *= 2
    with pytest.raises(ReportError, match=r"g0000\]' is there twice"):
        read_run(written(tmp_path / "x.json", data))


def test_unknown_fields_of_a_later_version_do_no_harm(tmp_path):
    baseline = run(records("p"))
    data = stored(tmp_path, baseline) | {"later": 1}
    data["cases"][0]["later"] = {"a": [1]}
    assert read_run(written(tmp_path / "x.json", data)) == replace(baseline)
