"""What docs/origins.md lists is there: commands, options, Python names, files, words of code."""

import ast
import inspect
import re
import shlex
from argparse import ArgumentTypeError
from functools import cache
from pathlib import Path

import pytest

import pytest_llmprobe
from pytest_llmprobe import Engine, cli
from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.quantization import WAYS
from pytest_llmprobe.models.registry import resolve
from pytest_llmprobe.plugin import command_line

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "origins.md").read_text(encoding="utf-8")
ORIGINS = ["GUIDE", "output-length-prediction", "NeedleThreadingTest", "miapipeline", "llmsearch"]
FOLDERS = ("evals/", "docs/", "examples/", "tests/", "pytest_llmprobe/")
PYTESTS_OWN = {"--model", "--pyargs"}
OBJECTS = {"engine": Engine}


def rows():
    sections = re.split(r"^## (.*)$", PAGE, flags=re.MULTILINE)[1:]
    for origin, text in zip(sections[::2], sections[1::2], strict=True):
        for line in text.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if line.startswith("|") and not set(line) <= set("|- ") and cells[0] != "feature":
                yield origin, cells


ROWS = list(rows())


@cache
def options():
    """What each option of the plugin is declared with."""

    class Declared(dict):
        def getgroup(self, *_):
            return self

        def addoption(self, name, **more):
            self[name] = more

        def addini(self, *_, **__):
            pass

    declared = Declared()
    command_line.add_options(declared)
    assert len(declared) > 20
    return declared


@cache
def sources():
    files = [*ROOT.glob("pytest_llmprobe/**/*.py"), *ROOT.glob("evals/**/*.py")]
    files.append(ROOT / "pytest_llmprobe" / "report" / "schema.json")
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def check_option(name, value):
    if name == "--model":
        assert all(resolve(model, {}).name == model for model in value.split(","))
    if name in PYTESTS_OWN:
        return
    assert name in options(), f"no option {name}"
    declared = options()[name]
    found = declared.get("type", str)(value)
    assert found in declared.get("choices", [found]), f"{name} has no {value}"
    if name == "--llmprobe-quantization":
        assert value in WAYS


def check_command(words):
    words = words[: words.index("--")] if "--" in words else words
    cli.command_parser().parse_args(words)


def check_pytest(words):
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            check_option(name, value if equals else following)
        elif word.startswith(FOLDERS) or word == "evals":
            check_path(word)


def check_path(word):
    assert (ROOT / word.partition("::")[0]).exists(), f"no {word}"


def check_python(text):
    for node in ast.walk(ast.parse(f"{text}\n    pass" if text.endswith(":") else text)):
        if isinstance(node, ast.ImportFrom):
            exec(compile(ast.unparse(node), "origins.md", "exec"), {})
        elif isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name):
                function = getattr(pytest_llmprobe, called.id)
            else:
                assert isinstance(called, ast.Attribute), ast.unparse(called)
                assert isinstance(called.value, ast.Name), ast.unparse(called)
                function = getattr(OBJECTS[called.value.id], called.attr)
            known = inspect.signature(function).parameters
            taken = any(one.kind is one.VAR_KEYWORD for one in known.values())
            assert taken or {one.arg for one in node.keywords} <= set(known), text


def check(span):
    """Raise unless a piece of code is something that there is."""
    words = shlex.split(span) if span.startswith(("llmprobe ", "pytest ")) else [span]
    if span.startswith("llmprobe "):
        check_command(words[1:])
    elif span.startswith("pytest "):
        check_pytest(words[1:])
    elif span.startswith("--"):
        check_pytest(shlex.split(span))
    elif span.startswith(FOLDERS):
        check_path(span)
    elif re.fullmatch(r"\w+", span):
        assert re.search(rf"\b{span}\b", sources()), f"no {span} in the code"
    else:
        check_python(span)


def test_every_origin_has_a_table():
    assert list(dict.fromkeys(origin for origin, _ in ROWS)) == [
        origin for origin in ORIGINS if re.search(rf"^## {origin}\n[^#]*\|", PAGE, re.MULTILINE)
    ]
    assert {"GUIDE", "output-length-prediction", "NeedleThreadingTest"} <= {o for o, _ in ROWS}


@pytest.mark.parametrize(("origin", "cells"), ROWS, ids=lambda v: v if isinstance(v, str) else None)
def test_a_row_is_true_or_dated(origin, cells, capsys):
    feature, here, by = cells
    assert feature
    assert by == "test" or re.fullmatch(r"20\d\d-\d\d-\d\d", by), f"{origin}: {feature}: by {by!r}"
    spans = re.findall(r"`([^`]+)`", here)
    assert spans or by != "test", f"{origin}: {feature}: nothing that a test could find"
    for span in spans:
        try:
            check(span)
        except (SystemExit, Exception) as error:
            pytest.fail(f"{origin}: {feature}: {span}: {error!r} {capsys.readouterr().err}")


@pytest.mark.parametrize(
    "span",
    [
        "llmprobe influenze --out a",
        "llmprobe train-length-probe states --depth 3 --out probe",
        "pytest evals/needle --llmprobe-phases=all",
        "pytest evals/nothing",
        "--llmprobe-layers=some",
        "--llmprobe-phase=decode",
        "--model=mistral-v0.2",
        "--llmprobe-quantization=nf3",
        "--llmprobe-layer=all",
        "docs/nothing.md",
        "no_such_word_anywhere",
        "from pytest_llmprobe import Nothing",
        "Steering(prompt)",
        'Steer("in French", detla=2.0)',
        "engine.generates([])",
    ],
)
def test_what_is_not_there_is_found_out(span, capsys):
    wrong = (SystemExit, AssertionError, AttributeError, ImportError, ArgumentTypeError, ModelError)
    with pytest.raises(wrong):
        check(span)
