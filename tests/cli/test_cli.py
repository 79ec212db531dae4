"""``llmprobe``: lists, describes, validates; errors are one line and exit code 4."""

import argparse
import json

import pytest

from pytest_llmprobe.cli import command_parser, main, models
from pytest_llmprobe.errors import ModelError, ReportError, ServerError, StorageError


def test_models_lists_every_name(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "reference               embedded, 11 MB here" in lines
    assert any("mistralai/Mistral-7B-Instruct-v0.3" in line for line in lines)


def test_describe_says_what_a_model_needs_and_its_path(capsys):
    assert main(["models", "--describe", "reference"]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["loads"] == (
        "as  LlamaForCausalLM (llama), 5,697,600 numbers in 56 tensors of BF16"
    )
    assert said["memory"].startswith("23 MB of weights (float32 on a CPU")
    assert said["context"] == "4,096 tokens"
    assert said["path"].startswith("own decode loop")


def test_models_of_the_project_are_known(tmp_path, monkeypatch, capsys):
    (tmp_path / "llmprobe.toml").write_text('[models.mine]\nsource = "somewhere/else"\n')
    monkeypatch.chdir(tmp_path)
    assert main(["models"]) == 0
    assert "mine                    somewhere/else" in capsys.readouterr().out
    (tmp_path / "llmprobe.toml").write_text("[models.mine]\n")
    assert main(["models"]) == 4
    assert "'source' (folder or hub id) is missing" in capsys.readouterr().err


def test_options_for_pytest_are_for_commands_that_run_it(capsys):
    with pytest.raises(SystemExit, match="4"):
        main(["models", "--", "-x"])
    assert "takes no options for pytest: -x" in capsys.readouterr().err


def test_an_unknown_model_is_one_line(capsys):
    assert main(["models", "--describe", "mistrl"]) == 4
    assert capsys.readouterr().err.startswith("llmprobe: unknown model 'mistrl'")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "does not follow its schema"),
        ("[1]", "does not follow its schema"),
        ("{", "cannot be read"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, capsys, content, words):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(SystemExit, match="1"):
        main(["validate", str(path)])
    assert words in capsys.readouterr().err
    assert main(["validate", str(tmp_path / "absent.json")]) == 4
    assert "absent.json cannot be read: No such file" in capsys.readouterr().err


def test_a_valid_report_is_said_to_be_one(tmp_path, capsys):
    report = {
        "schema_version": "1.0",
        "model": "m",
        "timestamp": "2026-01-02T03:04:05Z",
        "status": "complete",
        "environment": {
            "python": "3",
            "packages": {},
            "platform": "p",
            "cpu": {"name": "c", "cores": 2},
            "accelerators": [],
        },
        "commit": None,
        "config": {"model": "m", "profile": "ci", "seed": 0},
        "model_info": {},
        "experiments": [],
        "gate": {"verdict": "NOT JUDGED", "reason": "", "checks": []},
        "comparison": None,
        "self_check": None,
        "texts": None,
        "timings": {"total_s": 1.0, "generation_s": 0.5},
        "tests": [],
    }
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    again = tmp_path / "again.json"
    again.write_text(path.read_text())
    assert main(["validate", str(path), str(again)]) == 0  # a shell's runs/*/report.json
    out = capsys.readouterr().out
    assert out.count("valid, 0 tests, gate NOT JUDGED") == 2
    again.write_text("{}")
    with pytest.raises(SystemExit, match="1"):
        main(["validate", str(path), str(again)])
    assert f"llmprobe: {again}: the report does not follow" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "one"], "llmprobe compare: the following arguments are required: B ("),
        (["nosuch"], "llmprobe: argument COMMAND: invalid choice: 'nosuch' (choose from "),
        (["report", "last", "--what"], "llmprobe: unrecognized arguments: --what ("),
        ([], "llmprobe: the following arguments are required: COMMAND ("),
        (["report", "last", "--csv", ""], "llmprobe: --csv is empty: give it a value, or leave"),
        (["report", "last", "--needle-results="], "llmprobe: --needle-results is empty"),
        (["compare", " ", "other"], "llmprobe: an argument is empty"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_4(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 4
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(words)
    assert "--help says more" in err


def test_every_option_of_every_command_that_takes_a_value_refuses_an_empty_one(capsys):
    (commands,) = [
        one for one in command_parser()._actions if isinstance(one, argparse._SubParsersAction)
    ]
    options = [
        (name, action.option_strings[-1])
        for name, parser in commands.choices.items()
        for action in parser._actions
        if action.option_strings and action.nargs != 0
    ]
    assert len(options) > 80
    for command, option in options:
        with pytest.raises(SystemExit, match="4"):
            main([command, option, ""])
        assert capsys.readouterr().err.startswith(f"llmprobe: {option} is empty")


@pytest.mark.parametrize(
    ("error", "code"), [(StorageError, 7), (ServerError, 1), (ModelError, 4), (ReportError, 4)]
)
def test_the_exit_code_says_whose_failure_it_is(error, code, monkeypatch, capsys):
    def failing(models):
        raise error("it has --llmprobe-base-url and --llmprobe-describe")

    monkeypatch.setattr(models, "registered", failing)
    assert main(["models"]) == code
    # in this command's words, as far as it has such an option
    assert capsys.readouterr().err == "llmprobe: it has --llmprobe-base-url and --describe\n"


def test_an_interrupted_command_is_one_line_and_the_shells_exit_code(monkeypatch, capsys):
    def interrupted(models):
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "registered", interrupted)
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "llmprobe: interrupted\n"


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("models", "validate", "prefixes", "continue", "canaries"))
