"""What the help of every command opens with."""

from __future__ import annotations

import argparse
import difflib
from typing import Any

EXAMPLES = {
    "init": """\
llmprobe init
llmprobe init my-repository --family needle,json_format --ci gitlab""",
    "models": """\
llmprobe models
llmprobe models --describe ./my-checkpoint""",
    "validate": "llmprobe validate .llmprobe/runs/*/report.json",
    "compare": """\
llmprobe compare main last
llmprobe compare before.json after.json --fail-on worse""",
    "report": """\
llmprobe report last --html page.html
llmprobe report last --md comment.md --compare main""",
    "history": """\
llmprobe history
llmprobe history --model mistral --html history.html""",
    "show": """\
llmprobe show last --missed
llmprobe show last 'single_needle[5-pairs-3/depth-75]'""",
    "bars": """\
llmprobe bars last
llmprobe bars last --print""",
    "fidelity": "llmprobe fidelity ./my-checkpoint ./quantised --texts corpus.txt --kl 0.01",
    "gate": "llmprobe gate ./my-checkpoint ./quantised evals/needle --texts corpus.txt",
    "prefixes": """\
llmprobe prefixes --model ./my-checkpoint --dataset corpus.jsonl --out maps""",
    "canaries": "llmprobe canaries --count 50 --out canaries.jsonl",
    "continue": """\
llmprobe continue --prefix-map maps/MAP --model ./my-checkpoint --out strings.jsonl""",
    "similar": "llmprobe similar strings.jsonl --top 10",
    "hidden-states": """\
llmprobe hidden-states --dataset different_prompts --counts 3:20 --keep words --out states""",
    "train-length-probe": "llmprobe train-length-probe states --kind mlp --out probe",
    "predict-length": """\
llmprobe predict-length --probe probe --prompt 'Please say "apple" 6 times.'""",
    "influence": """\
llmprobe influence --prompt 'Say hello in French.' --span 'in French' --out influence""",
    "search": "llmprobe search evals/needle -k single --space small --model ./my-checkpoint",
}
"""By command; it must have been written here to be one."""

FIRST_STEPS = """\
llmprobe init
pytest evals --model=reference --llmprobe-profile=smoke -n 2
llmprobe show last --missed

What needs no pytest run. `llmprobe COMMAND --help` opens with an example."""


class WithExamples(argparse.HelpFormatter):
    """Examples come first, line by line, then usage, description and arguments as ever."""

    _usage: tuple[Any, ...] | None = None

    def add_usage(self, *usage: Any) -> None:  # noqa: D102
        self._usage = usage

    def add_text(self, text: str | None) -> None:  # noqa: D102
        if self._usage is None or text is None:
            super().add_text(text)
            return
        usage, self._usage = self._usage, None
        examples, _, description = text.partition("\n\n")
        self._add_item(str, [f"{examples}\n\n"])
        super().add_usage(*usage)
        super().add_text(description)

    def format_help(self) -> str:  # noqa: D102
        if self._usage is not None:  # an error shows the usage alone
            super().add_usage(*self._usage)
        return super().format_help()


def close_to(name: str) -> str:
    """A question for the commands that have nearly this name; empty if there are none."""
    close = difflib.get_close_matches(name, EXAMPLES, n=2)
    return f"; did you mean {' or '.join(close)}?" if close else ": `llmprobe --help` lists them"
