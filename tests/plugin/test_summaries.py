"""What an experiment computes over all its records: in every mode, also when it fails."""

import numpy  # noqa: F401 # pytester forgets what a run imports, and numpy loads once only
import pytest
from test_runs import timeless

from pytest_llmprobe.report.schema import validate

EVAL = """
    import pytest
    from pytest_llmprobe import Case
    from pytest_llmprobe.statistics.tables import curve, effective_context, heat_map

    def cases():
        for size in (3, 12):
            for number in range(16):
                metadata = {{"task": "echo", "size": size, "trial": number, "half": number % 2}}
                text = "x" * size + str(number)
                yield Case(f"s{{size}}/c{{number}}", f"say {{text}}", text, metadata)

    def summarise(records):
        {body}

    @pytest.mark.probe(cases=cases, {marker})
    @pytest.mark.gate(pass_rate=0.5)
    def test_echo(case, completion):
        {test}
"""
TABLES = (
    "return {'effective_context_characters': effective_context(records), "
    "'halves': curve(records, 'half'), 'map': heat_map(records, 'half', 'size'), "
    "'ids': [record.id for record in records], 'outcomes': [r.outcome for r in records]}"
)
RIGHT = "assert completion.text == case.target"


def evaluation(body=TABLES, marker="summary=summarise", test=RIGHT):
    return EVAL.format(body=body, marker=marker, test=test)


def test_all_modes_give_the_same_summary(project, pytester):
    project(evaluation(test="assert case.id.partition('/c1')[0] != 's3', 'it said a one'"))
    reports = []
    for mode in (("-p", "no:xdist"), ("-n", "0"), ("-n", "1"), ("-n", "2")):
        result = pytester.runpytest_subprocess(*mode, "--llmprobe-json=r.json")
        reports.append(timeless(pytester.path / "r.json"))
        assert "effective context" not in result.stdout.str()  # there is none to tell
    assert all(report == reports[0] for report in reports)
    (experiment,) = reports[0]["experiments"]
    found = experiment["summary"]
    assert found["map"]["columns"] == [3, 12]
    assert found["map"]["pass_rate"] == [[0.625, 1.0], [0.5, 1.0]]
    assert found["ids"] == [test["id"] for test in reports[0]["tests"]]
    assert {"passed", "missed"} == set(found["outcomes"])


def test_the_effective_context_is_in_characters_of_the_prompt(project, probe):
    project(evaluation())
    run = probe()
    assert (run.exit_code, run.verdict) == (0, "PASS"), run.text
    validate(run.report)
    assert run.experiment["summary"]["effective_context_characters"] == len("say ") + 12 + 1
    assert "echo: effective context characters 17" in run.text.splitlines()
    assert run.tests["test_echo[s3/c15]"]["prompt_characters"] == len("say xxx15")


def test_an_experiment_without_a_function_has_an_empty_summary(project, probe):
    project()
    run = probe()
    assert run.experiment["summary"] == {}
    assert "\necho: " not in run.text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return {'rate': 1 / 0}", "summarise: ZeroDivisionError: division by zero"),
        ("return {'rate': float('nan')}", "summarise: rate is nan; a summary holds finite"),
        ("pytest.skip('not today')", "summarise: Skipped: not today"),
    ],
)
def test_a_summary_that_fails_leaves_the_report_and_fails_the_run(project, probe, body, words):
    project(evaluation(body))
    run = probe("--llmprobe-gate=none")
    validate(run.report)
    assert run.outcomes == {"passed": 32}
    assert run.experiment["summary"].keys() == {"error"}
    assert run.experiment["summary"]["error"].startswith(words)
    assert (run.exit_code, run.verdict) == (1, "FAIL"), run.text
    lines = run.text.splitlines()
    assert [line for line in lines if line.startswith(f"echo: the summary failed: {words}")]
    assert [line for line in lines if line.startswith("llmprobe: GATE FAIL (echo: the summary")]


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("summary=lambda records: {}", "probe(summary=<lambda>): give a function"),
        ("summary=(lambda f: lambda records: f)(3)", "top level of test_eval.py"),
        ("summary='summarise'", "probe(summary='summarise'): give a function"),
        ("summary=cases", "it is called with one argument, the records"),
    ],
)
def test_a_function_that_could_not_be_called_is_found_at_once(project, pytester, marker, words):
    project(evaluation(marker=marker))
    result = pytester.runpytest_subprocess("-p", "no:xdist")
    assert result.ret == 4
    assert words in result.stderr.str()
    assert not (pytester.path / ".llmprobe").exists()


def test_a_part_of_the_cases_is_summed_up_too(project, probe):
    project(evaluation())
    run = probe("-k", "s12 and (c1 or c3)")
    assert run.exit_code == 0, run.text
    assert len(run.experiment["summary"]["ids"]) == run.experiment["n"] == 8
    assert run.experiment["summary"]["map"]["columns"] == [12]


def test_a_run_that_stopped_early_sums_up_what_there_is(project, probe):
    project(evaluation(test=f"if case.id == 's12/c3':\n            assert False\n        {RIGHT}"))
    run = probe("--llmprobe-misses=fail", "-x")
    validate(run.report)
    found = run.experiment
    assert len(found["summary"]["ids"]) == found["n"] >= 19
    assert run.report["status"] == "interrupted" or "2 workers" in run.text


def test_the_file_is_found_in_a_folder_with_what_lies_beside_it(project, probe, pytester):
    project(evaluation("from beside import rate\n        return {'rate': rate(records)}"))
    folder = pytester.mkdir("inner")
    (pytester.path / "test_eval.py").rename(folder / "test_eval.py")
    (folder / "beside.py").write_text(
        "def rate(records): return sum(r.is_correct for r in records)"
    )
    run = probe("inner")
    assert run.exit_code == 0, run.text
    assert run.experiment["summary"] == {"rate": 32}


GATED = """
    import pytest
    from pytest_llmprobe import Case

    def summarise(records):
        return {"area": {"mean": 0.8, "ci95": [LOW, 0.9]}}

    @pytest.mark.probe(cases=[Case(f"c{n}", "x 1") for n in range(9)], summary=summarise)
    @pytest.mark.gate(score={"NAME": {"max": 0.5}}, rule="significant")
    def test_echo(case, completion, score):
        score("length", 1)
"""


@pytest.mark.parametrize(
    ("name", "low", "exit_code", "words"),
    [
        ("area", 0.4, 0, "above 0.5, but not significantly"),
        ("area", 0.6, 1, "GATE FAIL (echo: area 0.800 is above 0.5)"),
        ("aera", 0.6, 4, "the test gives no score 'aera'; did you mean area"),
    ],
)
def test_what_a_summary_measures_of_all_cases_is_gated_like_a_score(
    project, pytester, name, low, exit_code, words
):
    project(GATED.replace("NAME", name).replace("LOW", str(low)))
    result = pytester.runpytest_inprocess("-p", "no:xdist")
    text = f"{result.stdout.str()}\n{result.stderr.str()}"
    assert result.ret == exit_code, text
    report = [*pytester.path.glob(".llmprobe/runs/*/report.json")]
    assert words in text + "".join(path.read_text() for path in report)
