"""What README and docs/ show works: examples, commands, options."""

import re
import shlex
from pathlib import Path

import pytest

from pytest_llmprobe import cli

ROOT = Path(__file__).parent.parent.parent
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


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_commands_are_written_as_they_are_understood(page, options, capsys):
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:sh|yaml)\n(.*?)```", text, flags=re.DOTALL)
    shown = {word for block in blocks for word in re.findall(r"--(?:no-)?llmprobe-[\w-]+", block)}
    assert shown <= {*options, *(f"--no-{name[2:]}" for name in options)}
    for path in {word for block in blocks for word in re.findall(r"\bevals/[\w/.]*", block)}:
        assert (ROOT / path).exists(), path
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        if line.lstrip("$ ").startswith("llmprobe "):
            words = shlex.split(line.lstrip("$ "), comments=True)[1:]
            words = words[: words.index("&&")] if "&&" in words else words
            try:
                cli.command_parser().parse_args(
                    words[: words.index("--")] if "--" in words else words
                )
            except SystemExit:
                pytest.fail(f"{line}: {capsys.readouterr().err}")
