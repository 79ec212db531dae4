"""Without the extra `local`: servers are evaluated, and models say what to install."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from loopback import chat

from pytest_llmprobe.models.local_packages import INSTALL, PACKAGES

ROOT = Path(__file__).parents[3]


@pytest.fixture
def light(tmp_path):
    """Run a program in an interpreter that has none of the packages."""

    def run(code, *arguments):
        absent = f"import sys; sys.modules.update(dict.fromkeys({PACKAGES!r}))\n"
        return subprocess.run(
            [sys.executable, "-c", absent + code, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )

    return run


FEW = ("--llmprobe-profile=smoke", "--llmprobe-limit=2")
PYTEST = "import pytest; sys.exit(pytest.main([*sys.argv[1:], '-p', 'no:cacheprovider', '-n0']))"
COMMAND = "from pytest_llmprobe.cli import main; sys.exit(main(sys.argv[1:]))"


def test_every_evaluation_runs_on_a_server(server, light, tmp_path):
    served = server(lambda asked: chat("I cannot say."))
    options = ("--model=openai:m", f"--llmprobe-base-url={served.url}/v1", "--llmprobe-html=p.html")
    run = light(PYTEST, str(ROOT / "evals"), *options, *FEW)
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = tmp_path.glob(".llmprobe/runs/*/report.json")
    report = json.loads(path.read_text())
    families = {test["id"].split("/")[1] for test in report["tests"]}
    folders = {folder.name for folder in (ROOT / "evals").iterdir() if folder.is_dir()}
    assert families == folders - {"speed"}  # which is measured on request
    assert {test["outcome"] for test in report["tests"]} == {"passed", "missed", "skipped"}
    for command in ("validate", "compare"):
        command = (command, *[str(path)] * (1 + (command == "compare")))
        done = light(COMMAND, *command)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("given", [("--model=reference",), (), ("--model=org/name",)], ids=str)
def test_a_model_in_this_process_says_what_to_install(light, given):
    run = light(PYTEST, str(ROOT / "evals/needle/test_single_needle.py"), *given)
    assert run.returncode == 4
    said = run.stdout + run.stderr
    assert f"runs in this process, which needs torch: {INSTALL}" in said
    assert "Error:" not in said
    assert "Traceback" not in said


def test_commands_that_need_no_model_work_and_others_say_what_to_install(light, tmp_path):
    assert light(COMMAND, "models").returncode == 0
    (tmp_path / "texts.txt").write_text("A text.")
    corpus = ("fidelity", "reference", "reference", "--texts", "texts.txt")
    for command in (("models", "--describe", "reference"), corpus):
        run = light(COMMAND, *command)
        assert run.returncode == 4
        assert re.fullmatch(r"llmprobe: [^\n]*\n", run.stderr), run.stderr
        assert INSTALL in run.stderr


def test_a_public_name_says_what_to_install(light):
    run = light("from pytest_llmprobe import Case, Engine, load_model")
    assert run.stderr.strip().endswith(f"ImportError: load_model: this needs torch: {INSTALL}")


def test_the_extra_brings_what_is_looked_for():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    base, local = (
        {name.replace("-", "_") for name in re.findall(r'^    "([\w-]+)[<>=]', part, re.MULTILINE)}
        for part in (
            re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)[1],
            re.search(r"^local = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)[1],
        )
    )
    assert local == {*PACKAGES} - {"huggingface_hub"}  # transformers brings that one
    assert not base & {*PACKAGES}
    assert {"pytest", "numpy", "py3langid"} <= base
