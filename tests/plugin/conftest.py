"""Real pytest runs of the plugin, each in three modes, on a scripted model."""

import json
from pathlib import Path
from textwrap import dedent

import pytest

MODES = {"plain": ("-p", "no:xdist"), "n0": ("-n", "0"), "n2": ("-n", "2")}
IDLE_XDIST = ("test_runs", "test_resumed_runs")
"""Modules that try n0, too: xdist is loaded, and hardly anything is otherwise than without."""

ENGINE = """
    import pytest
    from pytest_llmprobe import Engine, ScriptedModel

    def answer(prompt):
        {answer}

    @pytest.fixture(scope="session")
    def engine():
        return Engine(ScriptedModel(answer, context_length={context_length}))
"""

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    def cases():
        for group in range(4):
            for name in range(5):
                metadata = {"task": "echo", "size": group, "trial": name}
                text = f"{group}{name}"
                yield Case(f"g{group}/c{name}", f"say {text}", text, metadata, chance=0.1)

    @pytest.mark.probe(cases=cases, max_new_tokens=20)
    @pytest.mark.gate(pass_rate=0.5)
    def test_echo(case, completion, score):
        score("length", len(completion.text))
        assert completion.text == case.target, "it said something else"
"""


class Run:
    """A finished pytest run and what it left behind."""

    def __init__(self, result, folder):
        self.result = result
        self.exit_code = int(result.ret)
        self.text = result.stdout.str()
        self.said = f"{self.text}\n{result.stderr.str()}"
        self.folder = folder
        reports = sorted(folder.glob(".llmprobe/runs/*/report.json"))
        self.report_path = reports[-1] if reports else None

    @property
    def report(self):
        return json.loads(self.report_path.read_text())

    @property
    def tests(self):
        return {test["id"].partition("::")[2]: test for test in self.report["tests"]}

    @property
    def outcomes(self):
        outcomes = [test["outcome"] for test in self.report["tests"]]
        return {name: outcomes.count(name) for name in sorted(set(outcomes))}

    @property
    def verdict(self):
        """PASS, FAIL or NOT JUDGED from the printed line, which must be there once."""
        lines = [line for line in self.text.splitlines() if line.startswith("llmprobe: GATE ")]
        assert len(lines) == 1, self.text
        return lines[0].removeprefix("llmprobe: GATE ").partition(" (")[0]

    @property
    def experiment(self):
        (experiment,) = self.report["experiments"]
        return experiment


def pytest_collection_modifyitems(items):
    def is_wanted(item):
        if item.path.parent != Path(__file__).parent or item.path.stem in IDLE_XDIST:
            return True
        callspec = getattr(item, "callspec", None)
        return callspec is None or callspec.params.get("mode") != "n0"

    items[:] = filter(is_wanted, items)


@pytest.fixture(params=MODES)
def mode(request):
    return MODES[request.param]


@pytest.fixture
def project(pytester):
    """Write a conftest with a scripted engine and an eval; the last word of a prompt is right."""

    def project(
        evaluation=EVAL, answer="return prompt.split()[-1]", context_length=None, conftest=""
    ):
        engine = ENGINE.format(answer=answer, context_length=context_length)
        pytester.makeconftest(dedent(engine) + dedent(conftest))
        pytester.makepyfile(test_eval=dedent(evaluation))
        return pytester

    return project


@pytest.fixture
def probe(pytester, mode):
    """Run pytest in one mode, in a process of its own."""

    def probe(*arguments):
        result = pytester.runpytest_subprocess(*mode, *arguments)
        return Run(result, pytester.path)

    return probe
