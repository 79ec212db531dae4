"""What goes wrong: each trouble has one clear message, and what was measured is kept."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.models.registry import REFERENCE
from pytest_llmprobe.plugin.gate_options import refuse_empty
from pytest_llmprobe.report.schema import validate

CASES = """
    import pytest
    from pytest_llmprobe import Case

    def cases():
        {body}

    @pytest.mark.probe(cases=cases, {options})
    @pytest.mark.gate(pass_rate=0.5)
    def test_echo(case, completion, score):
        {test}
"""
TEN = "return [Case(f'c{i}', prompt=f'say {i}', target=str(i)) for i in range(10)]"
RIGHT = "assert completion.text == case.target"


def evaluation(body=TEN, options="", test=RIGHT):
    return CASES.format(body=body, options=options, test=test)


def test_a_killed_worker_loses_only_the_case_it_died_on(project, pytester):
    project(
        evaluation(test="import os; case.id == 'c4' and os.kill(os.getpid(), 9); " + RIGHT),
    )
    result = pytester.runpytest_subprocess("-n", "2")
    report = json.loads(next(pytester.path.glob(".llmprobe/runs/*/report.json")).read_text())
    validate(report)
    outcomes = {test["id"].partition("[")[2]: test["outcome"] for test in report["tests"]}
    assert outcomes == {f"c{i}]": "error" if i == 4 else "passed" for i in range(10)}
    assert result.ret == 1
    result.stdout.fnmatch_lines(["llmprobe: GATE FAIL (echo: 1 of 10 cases ended in an error)"])


@pytest.mark.parametrize("value", ["np.float64(0.5)", "np.int64(1)", "np.bool_(True)", "True"])
def test_a_score_may_be_a_numpy_scalar(project, probe, value):
    project(evaluation(test=f"import numpy as np; score('s', {value}); " + RIGHT))
    run = probe("-k", "c1 or c2")
    assert run.exit_code == 0, run.text
    assert run.outcomes == {"passed": 2}


def test_metadata_may_hold_anything(project, probe):
    project(
        evaluation(
            "import enum, numpy as np\n"
            "        Kind = enum.Enum('Kind', {'A': 'a'}, type=str)\n"
            "        return [Case('a', prompt='say 1', target='1', metadata={'kind': Kind.A, "
            "'size': np.int64(3), 'where': {1, 2}, 'nan': float('nan')})]"
        )
    )
    run = probe()
    assert run.exit_code == 0, run.text
    (test,) = run.report["tests"]
    assert (test["size"], test["params"]) == (3, {"kind": "a", "where": [1, 2], "nan": "nan"})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return []", "cases yielded no cases"),
        ("raise RuntimeError('no such file')", "building the cases with cases failed: RuntimeE"),
        ("return [Case('a', prompt='x'), Case('a', prompt='y')]", "two cases with the id 'a'"),
        ("return ['a']", "cases yielded 'a', which is not a Case"),
        ("return [Case('', prompt='x')]", "case id ''"),
        ("return [Case('a', prompt='')]", "case 'a': the prompt is empty"),
        ("return [Case('a', prompt=[{'role': 'user'}])]", "is no chat message"),
        ("return [Case('a', prompt='x', chance=2)]", "chance 2 is not between 0 and 1"),
    ],
)
def test_cases_that_cannot_be_used(project, pytester, body, words):
    project(evaluation(body))
    result = pytester.runpytest_subprocess("-p", "no:xdist")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: llmprobe: test_eval.py::test_echo: *"])
    assert words in result.stderr.str()
    assert not (pytester.path / ".llmprobe").exists()


IN_THE_MODULE = """
import pytest
from pytest_llmprobe import Case

CASES = [Case("a", "x", choices=["yes", "yes"], target="yes")]

@pytest.mark.probe(cases=CASES)
def test_echo(case, choice):
    assert choice.acc
"""


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (evaluation("return []"), "test_eval.py::test_echo: cases yielded no cases"),
        (
            IN_THE_MODULE,
            "test_eval.py: case 'a': choices[1] is 'yes', as choices[0]: choices differ",
        ),
    ],
)
@pytest.mark.parametrize("arguments", [(), ("-k", "nothing")])
def test_cases_that_cannot_be_used_are_told_once_in_every_mode(
    project, probe, source, words, arguments
):
    project(source)
    run = probe(*arguments)
    said = run.said.splitlines()
    assert run.exit_code == 4, said
    assert said.count(f"ERROR: llmprobe: {words}") == 1
    assert run.report_path is None


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("probe(cases=cases, max_tokens=3)", "unknown option 'max_tokens'"),
        ("probe(cases=cases, max_new_tokens=0)", "max_new_tokens=0"),
        ("probe(cases=cases, temperature=-1)", "temperature=-1"),
        ("probe(cases=cases, experiment=3)", "experiment=3"),
        ("probe(cases=cases)\n@pytest.mark.gate(pass_rat=1)", "known: pass_rate, score, rule"),
        ("probe(cases=cases)\n@pytest.mark.gate(pass_rate=90)", "pass_rate=90"),
        ("probe(cases=cases)\n@pytest.mark.gate(pass_rate=1, rule='x')", "rule='x'"),
        ("probe(cases=cases)\n@pytest.mark.gate(0.9)", "gate takes keyword arguments only"),
    ],
)
def test_markers_that_cannot_be_used(project, pytester, marker, words):
    project(
        f"""
import pytest
from pytest_llmprobe import Case
cases = [Case("a", prompt="x")]

@pytest.mark.{marker}
def test_echo(case, completion):
    pass
"""
    )
    result = pytester.runpytest_subprocess("-p", "no:xdist")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*test_eval.py::test_echo*"])
    assert words in result.stderr.str()


def test_two_experiments_of_one_name(project, pytester):
    project(evaluation())
    shutil.copy(pytester.path / "test_eval.py", pytester.path / "test_other.py")
    result = pytester.runpytest_subprocess("-p", "no:xdist")
    assert result.ret == 4
    assert "test_eval.py::test_echo is the experiment 'echo' too" in result.stderr.str()


@pytest.mark.parametrize(
    ("answer", "words", "verdict"),
    [
        ("raise RequestError('the model computed NaN')", "the model computed NaN", "FAIL"),
        ("raise KeyError(prompt)", "KeyError: 'say 3'", "NOT JUDGED"),  # no case has an answer
    ],
)
def test_an_error_of_one_answer(project, probe, answer, words, verdict):
    project(
        evaluation(),
        answer="from pytest_llmprobe.errors import RequestError\n"
        f"        if prompt.endswith('3'): {answer}\n        return prompt.split()[-1]",
    )
    run = probe()
    validate(run.report)
    assert (run.exit_code, run.verdict) == (1, verdict)
    errors = [test for test in run.report["tests"] if test["outcome"] == "error"]
    # A request's own error is its own; an unexpected exception is everybody's in its unit.
    assert len(errors) == (1 if "NaN" in words else 10)
    assert words in errors[0]["error"]
    assert words in run.text


def test_a_prompt_that_does_not_fit_is_an_error_with_the_numbers(project, probe):
    project(
        evaluation(
            "return [Case(f'c{n}', prompt='x' * n + ' 1', target='1') for n in (5, 50)]",
            "max_new_tokens=10",
        ),
        context_length=40,
    )
    run = probe()
    assert run.outcomes == {"error": 1, "passed": 1}
    error = run.tests["test_echo[c50]"]["error"]
    assert "52 tokens" in error
    assert "62" in error
    assert "40" in error


def test_an_endless_answer_is_cut_off_and_says_so(project, probe):
    project(evaluation(options="max_new_tokens=7"), answer="return '1' * 10_000")
    run = probe("--llmprobe-gate=none")
    assert run.outcomes == {"missed": 10}
    test = run.tests["test_echo[c1]"]
    assert (test["finish_reason"], test["generated_tokens"]) == ("length", 7)


@pytest.mark.parametrize(
    ("body", "outcome", "exit_code"),
    [
        ("score('s', 'x')", "error", 1),
        ("score('s', float('nan'))", "error", 1),
        ("score('s', 1); score('s', 2)", "error", 1),
        ("{}['x']", "error", 1),
        ("pytest.fail('by hand')", "error", 1),
        ("pytest.skip('not for this model')", "skipped", 0),
        ("pytest.xfail('known')", "skipped", 0),
        ("assert False", "missed", 0),
    ],
)
def test_what_a_test_body_can_do(project, probe, body, outcome, exit_code):
    project(evaluation(test=body))
    run = probe("-k", "c1", "--llmprobe-gate=none")
    assert run.outcomes == {outcome: 1}, run.text
    assert run.exit_code == exit_code
    assert run.verdict == ("FAIL" if outcome == "failed" else "NOT JUDGED")


@pytest.mark.parametrize("when", ["setup", "teardown"])
def test_a_fixture_that_fails_makes_an_error(project, probe, when):
    before, after = ("1 / 0", "") if when == "setup" else ("", "1 / 0")
    project(
        evaluation().replace("completion, score", "completion, broken"),
        conftest=f"""
    @pytest.fixture
    def broken():
        {before}
        yield
        {after}
    """,
    )
    run = probe("-k", "c1")
    assert run.outcomes == {"error": 1}
    assert "ZeroDivisionError" in run.report["tests"][0]["error"]
    assert (run.exit_code, run.verdict) == (1, "NOT JUDGED")


def test_an_ordinary_failure_beside_a_passing_gate_fails_the_verdict(project, probe, pytester):
    project(evaluation())
    pytester.makepyfile(test_plain="def test_plain(): assert False")
    run = probe()
    assert (run.exit_code, run.verdict) == (1, "FAIL")
    assert run.report["gate"]["checks"][0]["verdict"] == "PASS"
    assert run.report["gate"]["verdict"] == "FAIL"


def test_an_assertion_in_a_subtest_is_a_miss_of_its_case(project, probe):
    project(
        evaluation(test="with subtests.test('s'): assert completion.text == 'no'").replace(
            "completion, score", "completion, subtests"
        )
    )
    run = probe("--llmprobe-gate=none")
    assert run.outcomes == {"missed": 10}


# ------------------------------------------------------------------------------- before the run


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--model=mistrl", "unknown model 'mistrl'*did you mean mistral"),
        ("--model=./nowhere", "unknown model './nowhere'"),
        ("--llmprobe-profile=huge", "*invalid choice*huge"),
        ("--llmprobe-trials=0", "*'0' is not a whole number from 1 up"),
        ("--llmprobe-batch-size=-1", "*'-1' is not a whole number"),
        ("--llmprobe-token-budget=few", "*'few' is not a whole number"),
        ("--llmprobe-json=test_eval.py/r.json", "*test_eval.py is no folder"),
        ("--llmprobe-json=.", "*is a folder; give a file name"),
        ("--llmprobe-json=/proc/x/report.json", "*/proc takes no such file"),
        ("--llmprobe-html=/proc/page.html", "*/proc takes no such file"),
        ("--llmprobe-layers=all/1,6-9", "there is no layer 9; the model's 6 layers are 0 to 5"),
        ("--llmprobe-config=nowhere.toml", "*there is no file*nowhere.toml"),
        ("--llmprobe-dtype=float99", "*invalid choice*float99"),
        ("--llmprobe-device=gpu", "device 'gpu' is none"),
        ("--llmprobe-device=cuda:99", "device 'cuda:99' is not there*of cuda"),
        ("--llmprobe-attn-implementation=flash_attention_2", "needs the package flash_attn"),
    ],
)
def test_a_wrong_option_ends_the_run_at_once(project, pytester, option, words):
    project(evaluation())
    result = pytester.runpytest_subprocess("-n", "2", option)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"*{words}*"])
    assert not (pytester.path / ".llmprobe").exists()


def test_a_storage_that_cannot_be_written_ends_the_run_before_any_case(project, probe):
    project(evaluation())
    run = probe("--llmprobe-storage=/proc/storage")
    assert run.exit_code == 4
    assert run.said.count("the report path /proc/storage/runs/report.json cannot be written") == 1
    assert "Traceback" not in run.said


def test_every_option_that_takes_a_value_refuses_an_empty_one(pytestconfig):
    group = pytestconfig._parser.getgroup("llmprobe")
    names = [
        name
        for option in group.options
        for name in option.names()
        if option.attrs().get("action") not in ("store_true", "store_false")
        and name.startswith("--llmprobe-")
    ]
    assert len(names) > 40
    for name in names:
        try:
            refuse_empty(pytestconfig._parser.parse([f"{name}="]))
        except (pytest.UsageError, SettingsError) as error:
            assert name in str(error), name  # noqa: PT017 # one of the two must be raised
        else:
            pytest.fail(f"{name} may be empty")


def test_a_server_that_is_down_is_found_before_any_case(project, probe, pytester):
    project(evaluation())
    run = probe("--model=openai:x", "--llmprobe-base-url=http://127.0.0.1:1/v1")
    assert run.exit_code == 4
    run.result.stderr.fnmatch_lines(["ERROR: llmprobe: no server answers at 127.0.0.1:1 (*"])
    assert not (pytester.path / ".llmprobe").exists()


def test_a_damaged_model_folder_is_found_before_anything_loads(project, probe, pytester):
    project(evaluation())
    folder = pytester.path / "damaged"
    shutil.copytree(REFERENCE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    weights = folder / "model.safetensors"
    left = weights.read_bytes()[:-1000]
    weights.write_bytes(left)
    run = probe(f"--model={folder}")
    assert run.exit_code == 4
    run.result.stderr.fnmatch_lines(
        [f"*model.safetensors is damaged: it has {len(left)} bytes, its *"]
    )


def test_a_model_that_cannot_load_gives_one_error_and_stops(pytester, probe):
    folder = pytester.path / "odd"
    shutil.copytree(REFERENCE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "config.json").write_text('{"model_type": "no-such-type"}')
    pytester.makepyfile(test_eval=evaluation().replace("\n    ", "\n"))
    run = probe(f"--model={folder}")
    assert run.exit_code in (1, 2)
    assert run.verdict in ("FAIL", "NOT JUDGED")
    assert "cannot be loaded" in run.text
    assert "no-such-type" in run.text
    assert "Traceback" not in run.text
    assert set(run.outcomes) == {"error"}
    assert 1 <= run.outcomes["error"] <= 2  # one a worker


@pytest.mark.parametrize("owner", ["conftest", "plugin"])
def test_another_owner_of_the_model_option_keeps_it(project, probe, pytester, owner):
    project(evaluation())
    option = """
        def pytest_addoption(parser):
            parser.addoption("--model", default="theirs")
        def pytest_report_header(config):
            return f"their model is {config.getoption('--model')}"
    """
    if owner == "conftest":
        conftest = pytester.path / "conftest.py"
        theirs = "\n".join(line[8:] for line in option.splitlines())
        conftest.write_text(conftest.read_text() + theirs)
        arguments = ()
    else:
        pytester.makepyfile(theirs=option)
        pytester.syspathinsert()
        arguments = ("-p", "theirs")
    run = probe(*arguments, "--model=sedan", "--llmprobe-model=reference")
    assert run.exit_code == 0, run.text + run.result.stderr.str()
    assert "their model is sedan" in run.text
    assert run.report["model"] == "reference"


def test_the_model_comes_from_ini_and_environment(project, pytester, monkeypatch):
    project(evaluation())
    pytester.makeini("[pytest]\nllmprobe_model = reference-random")
    reports = pytester.path / "r.json"
    pytester.runpytest_subprocess(f"--llmprobe-json={reports}")
    assert json.loads(reports.read_text())["model"] == "reference-random"
    monkeypatch.setenv("LLMPROBE_MODEL", "reference")
    pytester.runpytest_subprocess(f"--llmprobe-json={reports}")
    assert json.loads(reports.read_text())["model"] == "reference"


# ------------------------------------------------------------------------------ interruptions


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_what_was_measured_survives_an_interruption(project, pytester, workers, how):
    project(evaluation(test="import time; time.sleep(0.3); " + RIGHT))
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-n", workers], cwd=pytester.path, stdout=subprocess.PIPE
    )
    records = records_when_there_are(pytester.path, 3)
    process.send_signal(how)
    output, _ = process.communicate(timeout=60)
    lines = records.read_text().splitlines()
    kept = [json.loads(line) for line in lines[1:]]
    assert all(record["outcome"] == "passed" for record in kept)
    assert len(kept) >= 3
    if how == signal.SIGINT:
        report = json.loads(records.with_name("report.json").read_text())
        validate(report)
        assert report["status"] == "interrupted"
        assert "llmprobe: GATE NOT JUDGED (the run was interrupted)" in output.decode()
        assert process.returncode == 2


def records_when_there_are(folder, count):
    """The records file, once it has a header and ``count`` records."""
    for _ in range(600):
        found = list(folder.glob(".llmprobe/runs/*/records.jsonl"))
        if found and len(found[0].read_text().splitlines()) > count:
            return found[0]
        time.sleep(0.05)
    raise AssertionError("no records appeared in 30 s")


# --------------------------------------------------------------------------- without any probe


@pytest.mark.usefixtures("unforked")
def test_a_run_without_probe_cases_says_and_leaves_nothing(pytester, mode):
    pytester.makepyfile(test_plain="def test_plain(): pass")
    pytester.makeconftest(
        """
        import sys
        def pytest_unconfigure(config):
            heavy = {"torch", "numpy", "transformers", "pytest_llmprobe.plugin.recorder",
                     "pytest_llmprobe.plugin.collection", "pytest_llmprobe.plugin.options"}
            assert not heavy & set(sys.modules), heavy & set(sys.modules)
        """
    )
    result = pytester.runpytest_subprocess(*mode, "-p", "no:hypothesispytest")
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert "llmprobe:" not in result.stdout.str()
    assert not (pytester.path / ".llmprobe").exists()
