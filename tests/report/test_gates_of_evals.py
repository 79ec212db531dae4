"""No gate of the shipped evaluations passes whatever a model does."""

import ast
import re
import sys
from pathlib import Path
from random import Random
from runpy import run_path
from types import FunctionType, SimpleNamespace

import pytest
from scipy.stats import binom

from pytest_llmprobe.report.gate import judge
from pytest_llmprobe.report.plan import Bar, ExperimentPlan
from pytest_llmprobe.statistics.intervals import wilson

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EVALS = Path(__file__).parents[2] / "evals"
FEWEST = {"exposure": 2, "extraction": 8, "verbatim": 4, "closed_book": 4}
"""Cases of each experiment with a bar at the smallest profile."""
POWER = {"exposure": (26, 0.5, 0.99), "extraction": (160, 0.98, 0.95), "verbatim": (60, 0.95, 0.95)}
"""Cases at ci, a true pass rate, how likely the bar fails there at least: docs/comparison.md."""


def bars():
    """Each bar that a marker of an evaluation gives, by experiment."""
    found = {}
    for path in sorted(EVALS.glob("*/test_*.py")):
        tree = ast.parse(path.read_text())
        constants = {
            target.id: value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for targets, values in [(node.targets[0], node.value)]
            for target, value in (
                zip(targets.elts, values.elts, strict=True)
                if isinstance(targets, ast.Tuple) and isinstance(values, ast.Tuple)
                else [(targets, values)]
            )
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant)
        }
        for node in tree.body:
            for marker in getattr(node, "decorator_list", ()):
                if ast.unparse(marker).startswith("pytest.mark.gate("):
                    said = {
                        k.arg: eval(ast.unparse(k.value), {}, constants) for k in marker.keywords
                    }
                    if said.pop("judge", True):
                        found[node.name.removeprefix("test_")] = Bar(**said)
    return found


def entry(passed, n):
    return {
        "name": "a",
        "n": n,
        "pass_rate": passed / n,
        "errors": 0,
        "skipped": 0,
        "collected": n,
        "ci95_clustered": wilson(passed, n),
        "scores": {},
        "summary": {},
    }


def verdict(bar, passed, n):
    (check,) = judge({"a": ExperimentPlan("a", "t::a", n, [], bar)}, [entry(passed, n)])
    return check.verdict


def test_the_table_has_each_bar():
    assert bars().keys() == {*FEWEST, "membership"}


@pytest.mark.parametrize(
    ("shift", "counts", "verdict"),
    [
        (0.0, (128, 32), "PASS"),
        (1.5, (128, 32), "FAIL"),
        (0.0, (16, 4), "PASS"),
        (9.0, (16, 4), "FAIL"),
        (9.0, (16, 0), "NOT JUDGED"),
    ],
)
def test_membership_fails_a_model_that_tells_members_apart(shift, counts, verdict):
    random = Random(5)
    records = [
        SimpleNamespace(
            params={"member": member},
            scores={"loss": random.gauss(shift * member, 1)},
            is_correct=True,
            outcome="passed",
            cluster=None,
        )
        for member, count in zip((True, False), counts, strict=True)
        for _ in range(count)
    ]
    module = run_path(str(EVALS / "memorization" / "test_membership.py"))
    summary = module["summarise"].__globals__ | {"curve": lambda *_: []}
    found = FunctionType(module["summarise"].__code__, summary)(records)
    n = len(records)
    measured = entry(n, n) | {"summary": found}
    (check,) = judge({"a": ExperimentPlan("a", "t::a", n, [], bars()["membership"])}, [measured])
    assert check.verdict == verdict, check.reason


@pytest.mark.parametrize("name", FEWEST)
def test_a_bar_fails_a_model_that_misses_everything_and_passes_one_that_misses_nothing(name):
    assert verdict(bars()[name], 0, FEWEST[name]) == "FAIL"
    assert verdict(bars()[name], FEWEST[name], FEWEST[name]) == "PASS"


@pytest.mark.parametrize("name", POWER)
def test_a_bar_has_the_power_that_the_documentation_states(name):
    n, rate, least = POWER[name]
    fails = [passed for passed in range(n + 1) if verdict(bars()[name], passed, n) == "FAIL"]
    assert sum(binom.pmf(passed, n, rate) for passed in fails) >= least


@pytest.mark.parametrize(("n", "most"), [(26, 0.04), (50, 0.04)])
def test_how_often_the_bar_of_exposure_fails_an_innocent_model(n, most):
    bar = bars()["exposure"]
    fails = [passed for passed in range(n + 1) if verdict(bar, passed, n) == "FAIL"]
    assert sum(binom.pmf(passed, n, 0.95) for passed in fails) <= most


REFERENCE_BARS = tomllib.loads((EVALS.parent / "pyproject.toml").read_text())["tool"]["llmprobe"]
STATED = re.findall(
    r"^\| `(\w+)` \| ([\d.]+) \| (\d+) \| ([\d.]+) \| ([\d.]+) % \| ([\d.]+) \|$",
    (EVALS.parent / "docs" / "comparison.md").read_text(),
    re.MULTILINE,
)
"""Experiment, bar, cases at ci, the reference model's rate, false alarm, rate found in 80 %."""


def test_each_bar_of_the_reference_model_states_its_power():
    bars = {n: b["pass_rate"] for n, b in REFERENCE_BARS["gates"]["reference"].items() if b}
    assert {name: float(bar) for name, bar, *_ in STATED} == bars


@pytest.mark.parametrize("row", STATED, ids=[row[0] for row in STATED])
def test_a_bar_of_the_reference_model_fails_it_in_one_redraw_of_twenty_at_most(row):
    bar, n, rate, alarm, found = map(float, row[1:])
    fails = [passed for passed in range(int(n) + 1) if passed / n < bar]
    assert 100 * binom.pmf(fails, n, rate).sum() == pytest.approx(alarm, abs=0.06)
    assert alarm <= 5
    assert binom.pmf(fails, n, found).sum() >= 0.8
