"""`llmprobe init`: what stands in a repository afterwards, and that it runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_llmprobe.cli import init, main
from pytest_llmprobe.models.settings import read_settings, read_toml

ROOT = Path(__file__).parents[2]


def test_what_is_copied_runs_and_passes_its_bars(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "mine", "--family", "needle"]) == 0
    *_, where, command = capsys.readouterr().out.splitlines()
    assert where.split() == ["cd", "mine"]
    program, *options = command.split()
    options[options.index("-n") + 1] = "0"
    done = subprocess.run(
        [sys.executable, "-m", program, *options, "-k", "single_needle"],
        cwd=tmp_path / "mine",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "llmprobe: GATE PASS" in done.stdout
    assert not list(tmp_path.glob(".llmprobe"))


def test_all_families_are_copied_with_both_jobs(tmp_path):
    assert main(["init", str(tmp_path), "--ci", "gitlab"]) == 0
    assert main(["init", str(tmp_path)]) == 0
    here = {path.relative_to(ROOT) for path in ROOT.glob("evals/**/*.py")}
    assert {path.relative_to(tmp_path) for path in tmp_path.glob("evals/**/*")} - here == {
        path.parent for path in here
    }
    for name, place in init.CI_JOBS.items():
        text = (tmp_path / place).read_text(encoding="utf-8")
        assert text == (init.TEMPLATES / f"{name}.yml").read_text(encoding="utf-8")


def test_the_bars_are_those_of_this_repository(tmp_path):
    assert main(["init", str(tmp_path), "--ci", "none"]) == 0
    settings = read_settings(tmp_path / "llmprobe.toml")
    own = read_settings(ROOT / "pyproject.toml")
    assert settings["gates"]["reference"] == own["gates"]["reference"]
    assert not (tmp_path / ".github").exists()


def test_the_commented_example_is_read_when_the_marks_are_taken_away():
    text = (init.TEMPLATES / "llmprobe.toml").read_text(encoding="utf-8")
    example = text[text.index("# [models.mine]") :]
    assert read_toml(re.sub("^# ?", "", example, flags=re.M)).keys() == {"models", "gates"}


def test_what_is_there_stays(tmp_path, capsys):
    mine = {
        "evals/needle/test_threading.py": "# mine",
        "llmprobe.toml": "",
        ".gitignore": "*.pyc",
        ".github/workflows/llmprobe.yml": "on: push",
    }
    for name, text in mine.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    for _ in range(2):
        assert main(["init", str(tmp_path), "--family", "needle"]) == 0
        out = capsys.readouterr().out
    mine[".gitignore"] = "*.pyc\n.llmprobe/*\n!.llmprobe/baselines/\n"
    for name, text in mine.items():
        assert (tmp_path / name).read_text(encoding="utf-8") == text
        assert f"{name}: is there and stays" in out.replace("\\", "/")


@pytest.mark.parametrize("given", ["nedle", "needle,", ","])
def test_families_are_named(tmp_path, capsys, given):
    code = main(["init", str(tmp_path / "new"), "--family", given])
    if given == "needle,":
        assert code == 0
        return
    assert code == 4
    assert "french_summary, generation_search, haystack" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_file_is_no_folder(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["init", str(tmp_path / "file")]) == 4
    assert "is a file: name a folder" in capsys.readouterr().err


def test_a_reader_that_stops_early_sees_no_traceback(tmp_path):
    program = "import sys; from pytest_llmprobe.cli import main; sys.exit(main())"
    command = f"{sys.executable} -u -c '{program}' init new 2>err | head -n 1"
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("\n") == 1
    assert (tmp_path / "err").read_text(encoding="utf-8") == ""


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert re.fullmatch(r"pytest-llmprobe \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)
