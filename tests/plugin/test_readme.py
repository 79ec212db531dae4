"""What README and docs/ show works: examples, commands, options."""

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
import yaml

from pytest_llmprobe import ScriptedModel, cli
from pytest_llmprobe.cli.init import TEMPLATES
from pytest_llmprobe.models.registry import resolve
from pytest_llmprobe.models.settings import read_gates, read_settings

ROOT = Path(__file__).parent.parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [path for path in (ROOT / "README.md", *ROOT.glob("docs/*.md")) if path.stem != "LOG"]


def test_the_evaluation_in_the_readme_runs(project, probe):
    (example,) = re.findall(r"```python\n(import pytest\n.*?)```", README, flags=re.DOTALL)
    project(example, answer="return 'It is Paris.' if 'France' in prompt else 'It is Lima.'")
    run = probe()
    assert run.exit_code == 0, run.text
    assert run.outcomes == {"passed": 2}
    assert run.experiment["name"] == "capital"
    assert run.experiment["scores"]["words"]["mean"] == 3.0


def cookbook():
    page = (ROOT / "docs/own-evals.md").read_text(encoding="utf-8")
    found = re.findall(r"### ([^\n]*)\n(.*?)(?=\n##|\Z)", page, flags=re.DOTALL)
    blocks = {title: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for title, text in found}
    return {title: block[0] for title, block in blocks.items() if block}


ANSWERS = {  # a model that is right; how many tests there are
    "Rows of your own": ("return '4' if '2 + 2' in prompt else '7.'", 2),
    "A system prompt, turns, few-shot": ("return 'chien' if 'dog' in prompt else 'Arbre'", 4),
    "A tool call": (
        """return 'Gladly: {"tool": "get_weather", "arguments": {"city": "Lyon", "days": 1}}'""",
        1,
    ),
    "A judge": ("return 'Because clouds are heavy.'", 1),
}


@pytest.mark.parametrize("mode", [("-n", "0")], ids=[""])
@pytest.mark.parametrize("title", ANSWERS)
def test_a_recipe_of_the_cookbook_runs(project, probe, title):
    answer, tests = ANSWERS[title]
    project(cookbook()[title], answer=answer)
    run = probe("--llmprobe-judge=reference") if title == "A judge" else probe()
    assert run.exit_code == 0, run.text
    assert run.outcomes == {"passed": tests}


def test_every_recipe_is_tried():
    assert cookbook().keys() == ANSWERS.keys()


def test_the_engine_answers_without_pytest(capsys):
    page = (ROOT / "docs/own-evals.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"## Without pytest\n\n```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(snippet, "own-evals.md", "exec"), {})
    assert capsys.readouterr().out == "482913\n"


class Names:
    """A parser of pytest that only learns which options there are."""

    def __init__(self):
        self.names = []

    def getgroup(self, *_):
        return self

    def addoption(self, name, **_):
        self.names.append(name)

    def addini(self, *_, **__):
        pass


@pytest.fixture(scope="module")
def options():
    from pytest_llmprobe.plugin import command_line

    names = Names()
    command_line.add_options(names)
    return names.names


def test_every_option_is_documented(options):
    page = (ROOT / "docs/options.md").read_text(encoding="utf-8")
    assert len(options) > 10
    assert [name for name in options if name not in page] == []


def blocks(page, *languages):
    """The text of a page's code blocks in these languages."""
    wanted = "|".join(languages)
    return re.findall(rf"```(?:{wanted})\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands(page):
    """The lines of a page that a shell is to run, each split into its single commands."""
    found = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    for block in blocks(page, "yaml"):
        found += [line for text in strings(yaml.safe_load(block)) for line in text.splitlines()]
    for line in found:
        words, command = shlex.split(line.strip().lstrip("$ "), comments=True), []
        for word in [*words, ";"]:
            if word in ("&&", "||", "|", ";", "do", "done"):
                yield from [command] if command else []
                command = []
            else:
                command = [*command, word.rstrip(";")]
                if word.endswith(";"):
                    yield command
                    command = []


def strings(content):
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for part in content.values() if isinstance(content, dict) else content:
            yield from strings(part)


ON_PAGES = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)


@ON_PAGES
def test_commands_are_written_as_they_are_understood(page, pytestconfig, capsys):
    for program, *words in commands(page):
        if program in ("llmprobe", ".venv/bin/llmprobe"):
            words = words[: words.index("--")] if "--" in words else words
            try:
                cli.command_parser().parse_args(words)
            except SystemExit:
                pytest.fail(f"llmprobe {shlex.join(words)}: {capsys.readouterr().err}")
        elif program in ("pytest", ".venv/bin/pytest"):
            try:  # pytest's own options, those of this plugin with the types of their values, -n
                pytestconfig._parser.parse(words)
            except pytest.UsageError as error:
                pytest.fail(f"pytest {shlex.join(words)}: {error}")
        for path in re.findall(r"(?:^|\s)(evals/[\w/.]*)", " ".join(words)):
            assert (ROOT / path).exists(), path


@ON_PAGES
def test_options_in_the_text_exist(page, options):
    shown = set(re.findall(r"--(?:no-)?llmprobe-[a-z]+[\w-]*", page.read_text(encoding="utf-8")))
    assert shown <= {*options, *(f"--no-{name[2:]}" for name in options)}


@ON_PAGES
def test_what_is_to_be_installed_can_be(page):
    extras = re.search(
        r"^\[project.optional-dependencies\]\n(.*?)^\[", PYPROJECT, re.DOTALL | re.MULTILINE
    )[1]
    known = set(re.findall(r"^([\w-]+) = \[", extras, re.MULTILINE))
    assert {"local", "openai", "dev"} <= known
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"pytest-llmprobe\[([\w,]+)\]|extra `(\w+)`|'\.\[(\w+)\]'", text)
    assert {name for found in named for part in found for name in part.split(",")} - {""} <= known


@ON_PAGES
def test_settings_are_read(page, tmp_path):
    for block in blocks(page, "toml"):
        (tmp_path / "pyproject.toml").write_text(block, encoding="utf-8")
        settings = read_settings(tmp_path / "pyproject.toml")
        assert settings["models"]
        for name in settings["models"]:
            resolve(name, settings["models"])
            read_gates(settings, name, tmp_path)


def test_the_jobs_in_the_docs_are_those_that_init_writes():
    written = [
        re.sub(r"^#.*\n", "", (TEMPLATES / f"{kind}.yml").read_text("utf-8"), flags=re.MULTILINE)
        for kind in ("github", "gitlab")
    ]
    assert blocks(ROOT / "docs/ci.md", "yaml") == written


def test_a_recorded_session_is_written_anew_by_its_own_commands():
    recorder = runpy.run_path(str(ROOT / "docs/record.py"))
    for path in [ROOT / "docs" / name for name in recorder["PAGES"]]:
        page, asked = path.read_text(encoding="utf-8"), []
        new = recorder["record"](page, lambda block, asked=asked: asked.append(block) or "PRINTED")
        assert asked == blocks(path, "sh")
        shown = blocks(path, "text")
        assert new.count("```text\nPRINTED\n```") == len(shown) > 0
        for text in shown:
            new = new.replace("PRINTED", text.strip(), 1)
        assert new == page


def test_what_a_session_prints_is_recorded_without_its_folder(tmp_path):
    run = runpy.run_path(str(ROOT / "docs/record.py"))["run_in"](tmp_path.resolve())
    assert run("mkdir inner; echo $PWD/inner; ls nothing; ls").splitlines()[::2] == ["inner"] * 2


TRIED = {
    "README": ("test_the_evaluation_in_the_readme_runs",),
    "own-evals": (*ANSWERS, "the same as in the README", "without pytest"),
    "generation-search": ("test_the_search_of_the_docs_runs",) * 3,
    "models": ("test_memory_run.py",) * 2,
    "report": ("test_the_summary_of_the_docs_runs",),
    "runs": ("test_tracking.py, with stand-ins for the trackers",),
    "standard-tasks": ("test_standard_docs.py",),
}
"""Which test runs each snippet of a page."""


@ON_PAGES
def test_every_snippet_is_tried(page):
    assert len(blocks(page, "python")) == len(TRIED.get(page.stem, ()))


def test_the_same_evaluation_opens_readme_and_page():
    shown = [blocks(ROOT / name, "python")[0] for name in ("README.md", "docs/own-evals.md")]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("mode", [("-n", "0")], ids=[""])
def test_the_summary_of_the_docs_runs(project, probe):
    (snippet,) = blocks(ROOT / "docs/report.md", "python")
    cases = """
import pytest
from pytest_llmprobe import Case

def single_needles():
    for size in (100, 200):
        yield Case(f"at-{size}", f"say {size}", str(size), {"size": size, "depth": 0.5}, chance=0.1)

"""
    test = "def test_needle(case, completion):\n    assert completion.text == case.target\n"
    project(cases + snippet + test)
    run = probe()
    assert run.exit_code == 0, run.text
    assert run.experiment["summary"].keys() == {"effective_context_characters", "heat_map"}


@pytest.mark.filterwarnings("ignore")  # of scikit-learn and Optuna
def test_the_search_of_the_docs_runs(tmp_path, monkeypatch, capsys):
    optuna = pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(10)]
    (tmp_path / "gsm8k.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = ScriptedModel(lambda prompt: str(int(re.findall(r"\d+", prompt)[-2]) + 1))
    monkeypatch.setattr("pytest_llmprobe.models.loading.load_model", lambda name: model)
    names = {"study": optuna.create_study(direction="maximize")}
    for snippet in blocks(ROOT / "docs/generation-search.md", "python"):
        exec(compile(snippet, "generation-search.md", "exec"), names)
    assert "tried" in capsys.readouterr().out
    assert names["study"].best_value == 1.0
