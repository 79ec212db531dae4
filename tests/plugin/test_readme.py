"""The README's example is a working evaluation."""

import re
from pathlib import Path

README = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_evaluation_in_the_readme_runs(project, probe):
    (example,) = re.findall(r"```python\n(import pytest\n.*?)```", README, flags=re.DOTALL)
    project(example, answer="return 'It is Paris.' if 'France' in prompt else 'It is Lima.'")
    run = probe()
    assert run.exit_code == 0, run.text
    assert run.outcomes == {"passed": 2}
    assert run.experiment["name"] == "capital"
    assert run.experiment["scores"]["words"]["mean"] == 3.0


def test_the_readme_names_every_option():
    from pytest_llmprobe.plugin import command_line

    class Names:
        def __init__(self):
            self.names = []

        def getgroup(self, *_):
            return self

        def addoption(self, name, **_):
            self.names.append(name)

        def addini(self, *_, **__):
            pass

    parser = Names()
    command_line.add_options(parser)
    assert len(parser.names) > 10
    assert [name for name in parser.names if name not in README] == []
