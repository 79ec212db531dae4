"""Files of a run: where they go, and that nothing half-written is left."""

import json
import math
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pytest_llmprobe.data import safe_writing
from pytest_llmprobe.data.safe_writing import check_place
from pytest_llmprobe.engine.completion_file import COMPLETIONS
from pytest_llmprobe.errors import ReportError, SettingsError
from pytest_llmprobe.report.files import (
    RecordLog,
    check_all_writable,
    check_writable,
    open_run,
    report_text,
    to_json,
    write_atomically,
)

NOON = datetime(2026, 3, 1, 12, 0, 5, tzinfo=timezone.utc)


def test_a_run_gets_a_folder_named_after_its_start_in_utc_and_its_model(tmp_path):
    there = NOON.astimezone(timezone(timedelta(hours=5)))
    run = open_run(tmp_path, "reference", None, there)
    assert run.report == tmp_path / "runs" / "20260301T120005Z-reference" / "report.json"
    assert run.report.parent.is_dir()
    assert run.records == run.report.with_name("records.jsonl")


def test_runs_of_one_second_get_folders_of_their_own(tmp_path):
    names = [open_run(tmp_path, "m", None, NOON).report.parent.name for _ in range(3)]
    assert names == [f"20260301T120005Z-m{suffix}" for suffix in ("", "-2", "-3")]


@pytest.mark.parametrize(
    ("model", "part"),
    [
        ("org/name@main", "org-name-main"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "model"),
        ("", "model"),
        ("größe 3\n", "gr-e-3"),
        ("llama-3.2-1b_x", "llama-3.2-1b_x"),
    ],
)
def test_no_model_name_leads_out_of_the_storage(tmp_path, model, part):
    folder = open_run(tmp_path, model, None, NOON).report.parent
    assert folder.parent == tmp_path / "runs"
    assert folder.name == f"20260301T120005Z-{part}"


def test_a_model_name_of_any_length_makes_a_folder(tmp_path):
    assert open_run(tmp_path, "/models/" + "x" * 400, None, NOON).report.parent.is_dir()


def test_a_report_path_is_taken_as_given_and_its_folder_is_made(tmp_path):
    path = tmp_path / "a" / "b" / "out.json"
    assert open_run(tmp_path / "storage", "m", path, NOON).report == path
    assert path.parent.is_dir()
    assert not (tmp_path / "storage").exists()


@pytest.mark.parametrize("name", ["records.jsonl", COMPLETIONS])
def test_other_data_of_a_run_have_their_names_for_themselves(tmp_path, name):
    with pytest.raises(ReportError, match="where other data go"):
        check_writable(tmp_path / name)


@pytest.mark.parametrize("name", ["new.json", "new/folder/report.json", "old.json"])
def test_a_path_that_can_be_written_passes_and_is_left_alone(tmp_path, name):
    (tmp_path / "old.json").write_text("old")
    before = sorted(tmp_path.rglob("*"))
    check_writable(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "old.json").read_text() == "old"


def test_a_folder_is_no_report_path(tmp_path):
    with pytest.raises(ReportError, match="is a folder"):
        check_writable(tmp_path)


def test_a_path_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ReportError, match="file is no folder"):
        check_writable(tmp_path / "file" / "sub" / "report.json")


@pytest.mark.parametrize("protected", ["folder", "report.json"])
def test_a_path_without_permission_cannot_be_written(tmp_path, monkeypatch, protected):
    # replaced because the superuser may write everywhere
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "report.json").write_text("old")

    def refused(prefix, dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(safe_writing.os, "access", lambda path, mode: path.name != protected)
    if protected == "folder":
        monkeypatch.setattr(safe_writing.tempfile, "mkdtemp", refused)
    with pytest.raises(ReportError, match=f"no permission for .*{protected}$"):
        check_writable(tmp_path / "folder" / "report.json")


@pytest.mark.parametrize("name", ["report.json", "a/b/report.json"])
def test_a_file_system_that_takes_no_files_is_found_whoever_asks(name):
    with pytest.raises(ReportError, match="/proc takes no such file"):
        check_writable(Path("/proc") / name)


def test_a_name_that_is_too_long_or_no_file_is_refused(tmp_path):
    for path in (tmp_path / ("n" * 300), tmp_path / ("n" * 300) / "r.json"):
        with pytest.raises(ReportError, match="name too long"):
            check_writable(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ReportError, match="it is no file"):
        check_writable(tmp_path / "pipe")


def test_two_forms_of_a_report_are_two_files(tmp_path):
    check_all_writable(tmp_path / "a", None, tmp_path / "b")
    with pytest.raises(ReportError, match="a is given twice"):
        check_all_writable(tmp_path / "a", None, tmp_path / "x" / ".." / "a")


def test_a_folder_for_files_may_be_there_or_not_and_is_no_file(tmp_path):
    check_place(tmp_path, "--out", folder=True)
    check_place(tmp_path / "new" / "one", "--out", folder=True)
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot be written: it is a file; name a folder"):
        check_place(tmp_path / "file", "--out", folder=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "new" / "report.json"
    for text in ("first, and longer", "second"):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "report.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "x" * 100_000 + "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_pieces_are_written_as_one_file_or_not_at_all(tmp_path):
    path = tmp_path / "report.json"
    write_atomically(path, (str(number) for number in range(3)))
    assert path.read_text() == "012"
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, (str(1 // (2 - number)) for number in range(3)))
    assert path.read_text() == "012"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_can_be_read_by_others(tmp_path):
    write_atomically(tmp_path / "report.json", "{}")
    assert (tmp_path / "report.json").stat().st_mode & 0o777 == 0o644


def test_json_is_sorted_and_ascii():
    assert to_json({"b": 1, "a": "ü\ud800"}) == '{"a": "\\u00fc\\ud800", "b": 1}'


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_json_is_not_written(value):
    with pytest.raises(ValueError, match="JSON"):
        to_json({"x": value})


def test_each_record_is_in_the_file_before_the_log_is_closed(tmp_path):
    path = tmp_path / "records.jsonl"
    with RecordLog(path, {"model": "m"}) as log:
        for number in range(3):
            log.append({"id": number})
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            assert lines == [{"header": {"model": "m"}}, *({"id": n} for n in range(number + 1))]


def test_a_text_with_line_breaks_is_still_one_line(tmp_path):
    with RecordLog(tmp_path / "r", {}) as log:
        log.append({"received": "a\nb\u2028c\r"})
    assert len((tmp_path / "r").read_bytes().splitlines()) == 2


def test_what_was_written_last_of_each_test_is_read_again_sorted(tmp_path):
    with RecordLog(tmp_path / "r", {"id": "of the run"}) as log:
        assert list(log) == []
        for name in "bca":
            log.append({"id": name, "received": f"{name}\n\u2028"})
            assert len(list(log)) == len(log)
        log.append({"id": "c", "received": "later"})
        assert [line["id"] for line in log] == ["a", "b", "c"]
        assert list(log.read(["c", "d", "a"])) == [
            {"id": "a", "received": "a\n\u2028"},
            {"id": "c", "received": "later"},
        ]
    assert len((tmp_path / "r").read_bytes().splitlines()) == 5


def test_a_second_run_at_the_same_place_does_not_take_the_records_of_the_first(tmp_path):
    with RecordLog(tmp_path / "r", {}) as first:
        first.append({"id": "a"})
        with RecordLog(tmp_path / "r", {}) as second:
            first.append({"id": "b"})
            second.append({"id": "c"})
            assert [list(log) for log in (first, second)] == [
                [{"id": "a"}, {"id": "b"}],
                [{"id": "c"}],
            ]


@pytest.mark.parametrize("tests", [[], ["a"], ["a", "b\n  ü"]], ids=len)
def test_a_report_has_its_keys_sorted_and_a_line_for_each_test(tmp_path, tests):
    report = {"tests": [{"id": name} for name in tests], "b": {"y": [1, "\n"], "x": {}}, "z": None}
    text = "".join(report_text(report))
    assert json.loads(text) == report
    assert list(json.loads(text)) == ["b", "tests", "z"]
    lines = text.splitlines()
    assert [line.strip() for line in lines if '"id"' in line] == [
        to_json(test) + "," * (test is not report["tests"][-1]) for test in report["tests"]
    ]
    with RecordLog(tmp_path / "r", {}) as log:
        for test in report["tests"]:
            log.append(test)
        assert "".join(report_text(report | {"tests": log})) == text


def test_a_log_is_closed_even_if_the_run_fails(tmp_path):
    with pytest.raises(RuntimeError, match="boom"), RecordLog(tmp_path / "r", {}) as log:
        raise RuntimeError("boom")
    with pytest.raises(ValueError, match="closed"):
        log.append({})
