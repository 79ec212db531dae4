"""A report's cases as a flat table, read back by what people read it with."""

import csv
import json
import sys
from types import SimpleNamespace

from some_reports import records, report

from pytest_llmprobe.cli import main
from pytest_llmprobe.report.table import table, write_csv, write_parquet

FORMULAS = ["=1+1", "+1", "-2", "@SUM(A1)", "\t=1", 'a, "b"\nc']


def some():
    return report(
        records("pm", params=[{"depth": 0.5}, {"depth": 0.5, "kind": "a"}], scores={"r": 0.25}),
        records("p", experiment="other", params={"depth": "deep", "list": [1, {"a": None}]}),
        records("p" * len(FORMULAS), experiment="formulas", received=FORMULAS),
    )


def read(path):
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_each_case_is_a_row_and_every_row_has_the_same_columns():
    rows = table(some())
    assert len(rows) == 3 + len(FORMULAS)
    assert len({tuple(row) for row in rows}) == 1
    needles = [row for row in rows if row["experiment"] == "needle"]
    assert [row["outcome"] for row in needles] == ["passed", "missed"]
    assert [row["scores.r"] for row in needles] == [0.25, 0.25]
    assert [row["params.kind"] for row in needles] == [None, "a"]
    assert next(iter(rows[0])) == "id"


def test_a_column_has_one_type():
    (other,) = (row for row in table(some()) if row["experiment"] == "other")
    assert other["params.depth"] == "deep"
    assert {row["params.depth"] for row in table(some())} == {"0.5", "deep", None}
    assert json.loads(other["params.list"]) == [1, {"a": None}]


def test_csv_reads_back_and_no_cell_is_a_formula(tmp_path):
    write_csv(some(), tmp_path / "cases.csv")
    rows = read(tmp_path / "cases.csv")
    assert [{k: v for k, v in row.items() if v} for row in rows] == [
        {k: "'" + v if str(v) in FORMULAS[:5] else str(v) for k, v in row.items() if v is not None}
        for row in table(some())
    ]


def test_parquet_has_the_texts_as_they_are(tmp_path, monkeypatch):
    """With a stand-in for pyarrow; docs/LOG.md says when its own file was read back."""
    written = {}
    parquet = SimpleNamespace(write_table=lambda rows, path: written.update({path: rows}))
    pyarrow = SimpleNamespace(Table=SimpleNamespace(from_pylist=list), parquet=parquet)
    monkeypatch.setitem(sys.modules, "pyarrow", pyarrow)
    write_parquet(some(), tmp_path / "cases.parquet")
    assert written == {tmp_path / "cases.parquet": table(some())}


def test_a_report_without_cases_is_an_empty_table(tmp_path):
    empty = report()
    assert table(empty) == []
    write_csv(empty, tmp_path / "cases.csv")
    assert read(tmp_path / "cases.csv") == []


def test_the_command_writes_and_names_the_file(tmp_path, capsys):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(some()))
    assert main(["report", str(path), "--csv", str(tmp_path / "cases.csv")]) == 0
    assert capsys.readouterr().out == f"written: {tmp_path / 'cases.csv'}\n"
    assert len(read(tmp_path / "cases.csv")) == 3 + len(FORMULAS)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(some()))
    assert main(["report", str(path), "--parquet", str(tmp_path / "cases.parquet")]) == 4
    assert 'pip install "pytest-llmprobe[datasets]", or give --csv' in capsys.readouterr().err
