"""An eval file's own function: found by name, loaded anew, and its summary checked."""

import importlib.util
import math
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pytest_llmprobe.errors import ReportError, SettingsError
from pytest_llmprobe.report.plan import ExperimentPlan
from pytest_llmprobe.report.record import Record
from pytest_llmprobe.report.summary import summarise
from pytest_llmprobe.report.summary_function import MAX_ERROR, SummaryFunction, checked

RECORDS = (Record("t::a[0]", "a", "passed", params={"depth": 0}), Record("t::a[1]", "a", "missed"))
FILE = Path("test_a.py")


def module(**names):
    made = ModuleType("test_a")
    vars(made).update(names)
    return made


def count(records):
    return {"n": len(records)}


def outer():
    def inner(records):
        return {}

    return inner


def no_argument():
    return {}


inner = outer()
shorter = lambda records: {}  # noqa: E731


@pytest.mark.parametrize(
    ("names", "function"),
    [({"count": count}, count), ({"imported_as": count}, count)],
)
def test_a_function_is_found_by_its_name_in_the_file(names, function):
    found = SummaryFunction.of(function, module(**names), FILE)
    assert found == SummaryFunction("test_a.py", next(iter(names)))


def test_an_object_that_can_be_called_is_found_too():
    wrapped = partial(count)
    assert SummaryFunction.of(wrapped, module(wrapped=wrapped), FILE).name == "wrapped"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (shorter, r"probe\(summary=<lambda>\): give a function .* top level of test_a\.py"),
        (inner, r"outer\.<locals>\.inner.*no lambda or function within a function"),
        ("count", r"probe\(summary='count'\): give a function"),
        ({"n": 1}, r"probe\(summary=\{'n': 1\}\): give a function"),
        (no_argument, "it is called with one argument, the records: too many positional"),
    ],
)
def test_what_could_not_be_called_at_the_end_is_refused_at_once(function, words):
    with pytest.raises(SettingsError, match=words):
        SummaryFunction.of(function, module(it=function), FILE)


def test_a_function_that_the_file_does_not_name_is_refused():
    with pytest.raises(SettingsError, match=r"probe\(summary=count\)"):
        SummaryFunction.of(count, module(), FILE)


# The call


@pytest.fixture
def called(tmp_path):
    """What the summary function of a file with this content gives."""

    def called(content, records=RECORDS, path="test_a.py"):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        before = dict(sys.modules), list(sys.path)
        try:
            return SummaryFunction(str(file), "summarise")(records)
        finally:
            assert sys.path == before[1]
            assert not [name for name in sys.modules if "_llmprobe_summary" in name]
            for name in sys.modules.keys() - before[0].keys():
                del sys.modules[name]

    return called


def test_the_function_receives_the_records_in_order(called):
    content = "def summarise(records): return {r.id: [r.is_correct, r.params] for r in records}"
    assert called(content) == {"t::a[0]": [True, {"depth": 0}], "t::a[1]": [False, {}]}


def test_the_function_cannot_change_the_records(called):
    content = "def summarise(records):\n records[0].params['depth'] = 9\n return {}"
    assert called(content) == {}
    assert RECORDS[0].params == {"depth": 0}


def test_only_judged_cases_are_summed_up(tmp_path):
    (tmp_path / "test_a.py").write_text("def summarise(records): return {'n': len(records)}")
    function = SummaryFunction(str(tmp_path / "test_a.py"), "summarise")
    records = [*RECORDS, Record("t::a[2]", "a", "error"), Record("t::a[3]", "a", "skipped")]
    plan = ExperimentPlan("a", "t::a", 4, [r.id for r in records], None, function)
    assert summarise(plan, records)["summary"] == {"n": 2}
    assert summarise(plan, records[2:])["summary"] == {}
    assert summarise(ExperimentPlan("a", "t::a", 4, []), records)["summary"] == {}


def test_the_file_may_import_what_lies_beside_it_and_hold_dataclasses(called, tmp_path):
    (tmp_path / "beside.py").write_text("def rate(records): return len(records) / 4")
    content = (
        "from __future__ import annotations\n"
        "from dataclasses import KW_ONLY, dataclass\n"
        "from beside import rate\n"
        "@dataclass\nclass Rate:\n _: KW_ONLY\n value: float\n"
        "def summarise(records):\n from beside import rate as again\n"
        " return vars(Rate(value=rate(records)))"
    )
    assert called(content) == {"value": 0.5}


def test_the_file_may_be_part_of_a_package(called, tmp_path):
    for folder in ("suite", "suite/inner"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    (tmp_path / "suite" / "beside.py").write_text("VALUE = 3")
    content = "from ..beside import VALUE\ndef summarise(records): return {'value': VALUE}"
    assert called(content, path="suite/inner/test_a.py") == {"value": 3}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("def summarise(records):\n return {'x': 1 / 0}", "ZeroDivisionError: division by zero"),
        ("def summarise(records):\n assert records == ()", "AssertionError"),
        ("import pytest\ndef summarise(records): pytest.skip('no')", "Skipped: no"),
        ("def summarise(records):\n raise SystemExit(0)", "SystemExit: 0"),
        ("import json\ndef summarise(records): json.loads('{')", "JSONDecodeError: Expecting"),
    ],
)
def test_a_function_that_raises_is_an_error_in_place_of_its_summary(called, content, words):
    (text,) = called(content).values()
    assert text.startswith(f"summarise: {words}")
    assert text.endswith(" (test_a.py:2)")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("def other(records): pass", "has no attribute 'summarise'"),
        ("raise OSError('gone')", "OSError: gone (test_a.py:1)"),
        ("def summarise(records): return []", "it gave []; a summary is a dict"),
        ("def summarise(records): return {'n': float('nan')}", "n is nan; a summary holds"),
        ("def summarise(records): return {'n': 10 ** 5000}", "ValueError: Exceeds the limit"),
        ("def summarise(records): raise OSError('x' * 9999)", "more characters]"),
    ],
)
def test_a_summary_that_cannot_be_had_says_why(called, content, words):
    found = called(content)
    assert found.keys() == {"error"}
    assert words in found["error"]
    assert len(found["error"]) < MAX_ERROR + 100


def test_a_file_that_is_gone_is_an_error(tmp_path):
    found = SummaryFunction(str(tmp_path / "test_gone.py"), "summarise")(RECORDS)
    assert "FileNotFoundError" in found["error"]


def test_without_a_judged_case_the_function_is_not_called(called):
    assert called("def summarise(records): return {'x': 1 / 0}", ()) == {}


# The summary


def test_a_summary_is_made_of_exact_builtin_types():
    class Own(dict):
        pass

    given = Own({"a": (1, 2.5, None, True), "b": Own({"c": ["x", ()]}), "": {}})
    found = checked(given)
    assert found == {"a": [1, 2.5, None, True], "b": {"c": ["x", []]}, "": {}}
    assert {type(found), type(found["b"])} == {dict}


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        (None, "it gave None; a summary is a dict"),
        ([("n", 1)], r"it gave \[\('n', 1\)\]"),
        ({"error": 0.5}, "'error' stands for a summary that failed"),
        ({1: 2}, "the key 1 is no string"),
        ({"a": [{"b": {None: 1}}]}, r"the key None of a\[0\]\.b is no string"),
        ({"rate": math.nan}, "rate is nan; a summary holds finite numbers"),
        ({"a": {"rates": [0.5, math.inf]}}, r"a\.rates\[1\] is inf"),
        ({"rate": np.float64(0.5)}, r"rate is np.float64\(0.5\)"),
        ({"n": [np.int64(1)]}, r"n\[0\] is np.int64\(1\)"),
        ({"ok": np.True_}, "ok is np.True_"),
        ({"all": np.zeros(5)}, "all is array"),
        ({"seen": {1, 2}}, r"seen is \{1, 2\}"),
        ({"where": Path("x")}, "where is PosixPath"),
    ],
)
def test_what_json_does_not_know_is_named_with_its_place(summary, words):
    with pytest.raises(ReportError, match=words):
        checked(summary)


def test_the_evals_of_this_project_name_functions_that_can_be_found():
    evals = Path(__file__).parents[2] / "evals"
    for path in sorted(evals.rglob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"copy_of_{path.stem}", path)
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        if hasattr(loaded, "summarise"):
            assert SummaryFunction.of(loaded.summarise, loaded, path).name == "summarise"
