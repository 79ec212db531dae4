"""Collapses that were green: each is named by what it once ended as, and ends red or as an error.

The model is right before and wrong in everything afterwards, unless a row says otherwise.
"""

import json
import re
from typing import NamedTuple

import pytest
import transformers.integrations.sdpa_attention  # noqa: F401 # forgotten after a run, loads once

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    cases = [Case(f"PREFIXc{n:02}", f"say {n}", str(n)) for n in range(40)]

    @pytest.mark.probe(cases=cases, max_new_tokens=20)
    GATE
    def test_echo(case, completion, score):
        BODY
        score("length", len(completion.text))
        assert RIGHT
"""
OTHER = """
    import pytest
    from pytest_llmprobe import Case

    @pytest.mark.probe(cases=[Case(f"o{n}", f"say {n}", str(n)) for n in range(40)])
    def test_other(case, completion):
        assert completion.text == case.target
"""
SAVE, COMPARE = ("--llmprobe-save=main",), ("--llmprobe-compare=main",)
GATES = "[tool.llmprobe.gates.reference]\n"
CI = {"CI": "true"}


class Collapse(NamedTuple):
    """A run that must not be green: its exit code, and words that it says."""

    exit_code: int
    words: str
    arguments: tuple[str, ...] = COMPARE
    before: tuple[str, ...] | None = SAVE
    gate: str = ""
    body: str = "pass"
    right: str = "False"
    prefix: str = ""
    config: str = ""
    environment: dict[str, str] = {}  # nobody writes into it
    has_echo: bool = True


def bar(line, **more):
    """A bar in the configuration, and no baseline."""
    return Collapse(4, arguments=(), before=None, config=GATES + line, **more)


def usage(words, *arguments, **more):
    """A usage error."""
    return Collapse(4, words, arguments, None, **more)


TABLE = {
    "-k 'not c39' with a baseline: PASS": Collapse(
        1, "echo: only 39 of 40 cases", (*COMPARE, "-k", "not c39")
    ),
    "-k c1 with a baseline, exit 0": Collapse(1, "only 10 of 40 cases", (*COMPARE, "-k", "c1")),
    "-k c1 with a bar in CI, exit 0": Collapse(
        1,
        "echo: only 10 of 40 cases were measured",
        ("-k", "c1"),
        None,
        gate="@pytest.mark.gate(pass_rate=0.5)",
        environment=CI,
    ),
    "one pytest.skip and a bar in CI: PASS with 1 not judged": Collapse(
        1,
        "only 39 of 40 cases were measured",
        (),
        None,
        gate="@pytest.mark.gate(pass_rate=0.5)",
        body="case.target == '3' and pytest.skip('no')",
        right="True",
        environment=CI,
    ),
    "one pytest.skip with a baseline: PASS": Collapse(
        1, "could not be in this run", body="case.target == '3' and pytest.skip('no')"
    ),
    "every case skipped with a baseline, exit 0": Collapse(
        1, "no case was measured in both runs", body="pytest.skip('no')"
    ),
    "every case in error: the model's GATE FAIL": Collapse(
        1, "GATE NOT JUDGED (echo: all 40 cases that ran ended in an error: ZeroDiv", body="1 / 0"
    ),
    "all ids renamed, exit 0": Collapse(1, "no case was measured in both runs", prefix="new"),
    "the experiment is absent, exit 0": Collapse(
        1, "echo: only in main", (*COMPARE, "test_other.py"), has_echo=False
    ),
    "a limit with a baseline: PASS": Collapse(
        1, "only 4 of 40 cases of main have a pair", (*COMPARE, "--llmprobe-limit=4"), right="True"
    ),
    "a limit with a bar that is required, exit 0": Collapse(
        1,
        "--llmprobe-limit left out 36 cases",
        ("--llmprobe-limit=4", "--llmprobe-require-judged"),
        None,
        gate="@pytest.mark.gate(pass_rate=0.5)",
        right="True",
    ),
    "nothing to judge, and it is required, exit 0": Collapse(
        1, "no bar and no baseline was given", ("--llmprobe-require-judged",), None
    ),
    "a bar of 0: PASS": Collapse(
        1,
        "no pass rate is below 0",
        ("--llmprobe-gate=thresholds",),
        None,
        gate="@pytest.mark.gate(pass_rate=0)",
    ),
    "a bar that so few cases cannot miss: PASS": Collapse(
        1,
        "with 40 cases no result would be significantly below 0.05",
        ("--llmprobe-gate=thresholds",),
        None,
        gate="@pytest.mark.gate(pass_rate=0.05, rule='significant')",
    ),
    "a module that skips itself and has a bar, exit 0": Collapse(
        1,
        "echo: no test of it was collected",
        ("test_other.py", "test_eval.py"),
        None,
        body="pass\n    pytest.skip('absent', allow_module_level=True)\n    def x():\n        pass",
        config=GATES + "echo = { pass_rate = 0.5 }",
        environment=CI,
    ),
    "a misspelt experiment: ignored": bar(
        "ehco = { pass_rate = 0.5 }", words="ehco: there is no such experiment; did you mean echo"
    ),
    "a misspelt experiment that is not gated: ignored": bar(
        "ehco = false", words="did you mean echo"
    ),
    "an unknown experiment: ignored": bar(
        "nothing = { pass_rate = 0.5 }", words="nothing: there is no such experiment"
    ),
    "a misspelt model: ignored": usage(
        "unknown model 'refrence'*did you mean reference",
        config="[tool.llmprobe.gates.refrence]\necho = { pass_rate = 0.5 }",
    ),
    "a misspelt score: known at the end": bar(
        "echo = { score = { lenght = 1 } }", words="no score 'lenght'; did you mean length"
    ),
    "a bar above 1 of another model: ignored": usage(
        "pass_rate=90 is not between 0 and 1",
        config="[tool.llmprobe.gates.mistral]\necho = { pass_rate = 90 }",
    ),
    "gates = 1: an AttributeError": usage("gates is 1", config="[tool.llmprobe]\ngates = 1"),
    "[[gates]]: an AttributeError": usage("list of tables", config="[[tool.llmprobe.gates]]\n"),
    "[[models]]: an AttributeError": usage("list of tables", config="[[tool.llmprobe.models]]\n"),
    "models = 3: an AttributeError": usage("models is 3", config="[tool.llmprobe]\nmodels = 3"),
    "llmprobe = 1: an AttributeError": usage("llmprobe] is 1", config="[tool]\nllmprobe = 1"),
    "dtype = 5: an AttributeError": usage(
        "dtype = 5 is not auto or float32",
        "--model=mine",
        config="[tool.llmprobe.models.mine]\nsource = '.'\ndtype = 5",
    ),
    "--model= : the embedded model passes": usage(
        "--model (--llmprobe-model) is empty", "--model="
    ),
    "LLMPROBE_MODEL='': the embedded model passes": usage(
        "LLMPROBE_MODEL is empty", environment={"LLMPROBE_MODEL": ""}
    ),
    "--llmprobe-compare= : ignored": usage("compare is empty", "--llmprobe-compare="),
    "--llmprobe-save=' ': ignored": usage("save is empty", "--llmprobe-save= "),
    "--llmprobe-config= : ignored": usage("config is empty", "--llmprobe-config="),
    "--llmprobe-json= : ignored": usage("json is empty", "--llmprobe-json="),
    "a misspelt baseline": Collapse(
        4, "no baseline, file or run 'mian'; did you mean main", ("--llmprobe-compare=mian",)
    ),
}


def write(project, pytester, collapse, **changes):
    collapse = collapse._replace(**changes)
    text = EVAL
    for name in ("prefix", "gate", "body", "right"):
        text = text.replace(name.upper(), getattr(collapse, name))
    if not collapse.has_echo:
        text = "x = 1"
    project(text)
    (pytester.path / "test_other.py").write_text("\n".join(x[4:] for x in OTHER.splitlines()))
    (pytester.path / "pyproject.toml").write_text(collapse.config)


@pytest.mark.parametrize("name", TABLE)
def test_a_collapse_that_was_green(project, pytester, mode, monkeypatch, name):
    collapse = TABLE[name]
    if collapse.before is not None:
        right = {"right": "completion.text == case.target", "body": "pass", "prefix": ""}
        write(project, pytester, collapse, **right, config="", has_echo=True)
        before = pytester.runpytest_inprocess("-p", "no:xdist", *collapse.before, "test_eval.py")
        assert before.ret == 0, before.stdout.str()
    write(project, pytester, collapse)
    for variable, value in collapse.environment.items():
        monkeypatch.setenv(variable, value)
    named = any(argument.startswith("test_") for argument in collapse.arguments)
    files = () if named else ("test_eval.py",)
    result = pytester.runpytest_inprocess(*mode, *collapse.arguments, *files)
    text = f"{result.stdout.str()}\n{result.stderr.str()}"
    assert int(result.ret) == collapse.exit_code, text
    pattern = ".*".join(map(re.escape, collapse.words.split("*")))
    assert re.search(pattern, text), text
    lines = re.findall(r"^llmprobe: GATE (.*?) \(", text, re.MULTILINE)
    if collapse.exit_code == 4:
        assert lines == []
        (message,) = {line for line in text.splitlines() if line.startswith("ERROR: llmprobe: ")}
        assert re.search(pattern, message)
    else:
        assert lines
        assert lines[-1] != "PASS"


@pytest.mark.parametrize(
    ("arguments", "environment", "config", "exit_code"),
    [
        ((), CI, "", 0),  # nothing was asked
        (("-k", "c1"), {}, GATES + "echo = { pass_rate = 0.5 }", 0),  # a person explores
        (("-k", "c1"), {"CI": ""}, GATES + "echo = { pass_rate = 0.5 }", 0),
        (("-k", "c1"), CI, GATES + "echo = { pass_rate = 0.5 }", 1),
        (("-k", "c1", "--no-llmprobe-require-judged"), CI, GATES + "echo.pass_rate = 0.5", 0),
        (("-k", "c1", "--llmprobe-gate=all"), {}, GATES + "echo.pass_rate = 0.5", 1),
        (("test_other.py",), CI, GATES + "echo = { pass_rate = 0.5 }", 0),  # it is elsewhere
        (("-k", "o1"), CI, GATES + "echo = { pass_rate = 0.5 }", 0),
        ((), CI, "[tool.llmprobe.gates.'org/model-7b']\necho.pass_rate = 0.5", 0),
        ((), CI, "[tool.llmprobe.gates.'./absent/step-1']\necho.pass_rate = 0.5", 0),
        ((), CI, GATES + "echo = { score = { length = 1 } }", 0),
    ],
)
def test_what_stays_comfortable(
    project, pytester, monkeypatch, arguments, environment, config, exit_code
):
    write(project, pytester, TABLE["gates = 1: an AttributeError"], right="True", config=config)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    result = pytester.runpytest_inprocess("-p", "no:xdist", *arguments)
    assert int(result.ret) == exit_code, result.stdout.str()


INCAPABLE = """
    import pytest
    from pytest_llmprobe import Case

    @pytest.mark.probe(cases=[Case(f"c{n}", f"say {n}") for n in range(9)])
    @pytest.mark.gate(pass_rate=0.5)
    def test_echo(case, prefix_map):
        pass
"""


@pytest.mark.parametrize(
    ("body", "config", "exit_code"),
    [
        ("pass", "", 0),  # the model is in no process of ours: the eval file did not mean it
        ("pass", GATES + "echo.pass_rate = 0.5", 1),  # who wrote this did
        ("case.id == 'c1' and pytest.skip('no')", GATES + "echo.pass_rate = 0.5", 1),
    ],
)
def test_what_a_model_cannot_be_asked_is_red_only_where_its_own_bar_asks_it(
    project, probe, pytester, monkeypatch, body, config, exit_code
):
    project(INCAPABLE.replace("        pass", f"        {body}"))
    (pytester.path / "pyproject.toml").write_text(config)
    monkeypatch.setenv("CI", "1")
    run = probe()
    assert run.exit_code == exit_code, run.text
    assert (run.verdict, run.outcomes) == ("NOT JUDGED", {"skipped": 9})


def test_without_a_bar_rates_are_measured_and_one_line_says_how_to_keep_them(project, probe):
    project(EVAL.replace("GATE", "").replace("BODY", "pass").replace("RIGHT", "True"))
    run = probe()
    assert run.exit_code == 0
    (row,) = [line for line in run.text.splitlines() if line.startswith("echo ")]
    assert "MEASURED" in row
    assert run.text.count("llmprobe bars") == 1
    assert run.verdict == "NOT JUDGED"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "it is no JSON"),
        (lambda text: text.replace('"cases": [', '<<<<<<< HEAD\n"cases": ['), "merge conflict"),
        (lambda text: text.replace('"schema_version": "1.0"', '"schema_version": "0.1"'), "format"),
        (lambda text: text.replace('"pass_rate":1.0', '"pass_rate":NaN'), "NaN is no JSON"),
        (lambda text: text.replace('"cases": [\n', '"cases": [\n' + line(text) + ",\n"), "twice"),
        (lambda text: text.replace(line(text) + ",\n", ""), "part of it is lost"),
        (lambda text: "[]", "no report and no baseline"),
        (None, "cannot be read"),
    ],
)
def test_a_damaged_baseline_ends_the_run_before_a_model_loads(project, pytester, damage, words):
    write(project, pytester, TABLE["all ids renamed, exit 0"], right="True")
    pytester.runpytest_inprocess("-p", "no:xdist", "test_eval.py", *SAVE)
    (path,) = pytester.path.glob(".llmprobe/baselines/*/main.json")
    text = path.read_text()
    path.unlink()
    path.mkdir() if damage is None else path.write_text(damage(text))
    assert damage is None or path.read_text() != text
    result = pytester.runpytest_inprocess("-p", "no:xdist", "test_eval.py", *COMPARE)
    assert result.ret == 4
    (message,) = [line for line in result.stderr.lines if line.startswith("ERROR: ")]
    assert words in message
    assert str(path) in message


def line(baseline):
    """The first case's."""
    return next(row for row in baseline.splitlines() if '"id":' in row).rstrip(",")


# ------------------------------------------------------------------------ whose baseline it is


@pytest.fixture
def checkpoint(pytester):
    """A folder that is a model as far as anybody looks: the scripted engine answers for it."""

    def checkpoint(name):
        from pytest_llmprobe.models.registry import REFERENCE

        folder = pytester.path / name
        folder.mkdir(parents=True)
        for file in REFERENCE.iterdir():
            if file.is_file():
                (folder / file.name).symlink_to(file)
        return folder

    return checkpoint


def test_any_spelling_of_a_folder_is_one_model(project, pytester, checkpoint):
    folder = checkpoint("ckpt/step-1")
    write(project, pytester, TABLE["all ids renamed, exit 0"], right="True")
    first = pytester.runpytest_inprocess(
        "-p", "no:xdist", "test_eval.py", "--model=ckpt/step-1", *SAVE
    )
    assert first.ret == 0
    for spelling in ("./ckpt/step-1/", str(folder), "ckpt/../ckpt/step-1"):
        result = pytester.runpytest_inprocess(
            "-p", "no:xdist", "test_eval.py", f"--model={spelling}", *COMPARE
        )
        assert result.ret == 0, result.stdout.str()
        result.stdout.fnmatch_lines(["this run compared with main"])
    pytester.runpytest_inprocess("-p", "no:xdist", "test_eval.py", f"--model={folder}", *SAVE)
    assert len([*pytester.path.glob(".llmprobe/baselines/*/main.json")]) == 1


def test_another_models_baseline_is_the_normal_case(project, pytester, checkpoint):
    checkpoint("base-model")
    write(project, pytester, TABLE["all ids renamed, exit 0"], right="True")
    plain = ("-p", "no:xdist", "test_eval.py")
    pytester.runpytest_inprocess(*plain, "--model=./base-model", *SAVE)
    result = pytester.runpytest_inprocess(*plain, *COMPARE)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["this run compared with baseline main of base-model"])
    assert "not comparable" not in result.stdout.str()
    checkpoint("other")
    pytester.runpytest_inprocess(*plain, "--model=other", *SAVE)
    result = pytester.runpytest_inprocess(*plain, *COMPARE)
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*'main': name one of base-model/main, other/main"])
    for named in ("other/main", "./other/main"):
        result = pytester.runpytest_inprocess(*plain, f"--llmprobe-compare={named}")
        assert result.ret == 0
        result.stdout.fnmatch_lines(["this run compared with baseline main of other"])
    pytester.runpytest_inprocess(*plain, *SAVE)
    result = pytester.runpytest_inprocess(*plain, *COMPARE)  # its own, now that there is one
    result.stdout.fnmatch_lines(["this run compared with main"])


def test_a_folders_bars_hold_however_it_is_spelt(project, pytester, checkpoint):
    checkpoint("ckpt/step-1")
    config = "[tool.llmprobe.gates.'./ckpt/step-1']\necho = { pass_rate = 0.5 }"
    write(project, pytester, TABLE["all ids renamed, exit 0"], config=config)
    result = pytester.runpytest_inprocess(
        "-p", "no:xdist", "test_eval.py", f"--model={pytester.path / 'ckpt/step-1'}"
    )
    assert result.ret == 1
    (report,) = pytester.path.glob(".llmprobe/runs/*/report.json")
    assert json.loads(report.read_text())["model"] == "ckpt/step-1"
