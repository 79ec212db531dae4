"""``llmprobe show``: all that a run knows of a case."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_llmprobe.cli.reports import STORAGE, print_line, read_report
from pytest_llmprobe.errors import ReportError

FIRST = ("outcome", "explanation", "error", "finish_reason", "failure", "params", "scores")
MOST_LISTED = 20
FIRST_LISTED = ("error", "missed", "passed", "skipped")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command on the parser's subparsers."""
    parser = commands.add_parser("show", help="show a case of a run with its whole prompt")
    parser.description = "CASE is a part of the case's id; where several have it, they are listed."
    parser.add_argument("report", metavar="RUN", help="a report, a run's folder, its name, or last")
    parser.add_argument("case", metavar="CASE", nargs="?", default="", help="a part of its id")
    parser.add_argument("--missed", action="store_true", help="only cases that missed")
    parser.add_argument("--json", action="store_true", help="the record as JSON, with the prompt")
    parser.add_argument(
        "--storage", type=Path, default=STORAGE, metavar="DIR", help=f"default: {STORAGE}"
    )
    parser.set_defaults(run=_show)


def _show(options: argparse.Namespace) -> None:
    from pytest_llmprobe.report.prompt_file import PROMPTS, kept_prompt

    path, report = read_report(options.report, options.storage)
    tests = report["tests"]
    chosen = [test for test in tests if options.case in test["id"]]
    exact = [test for test in chosen if options.case in (test["id"], _short(test["id"]))]
    chosen = exact or chosen
    if options.missed:
        chosen = [test for test in chosen if test["outcome"] == "missed"]
    if not chosen:
        what = "missed case" if options.missed else "case"
        raise ReportError(
            f"{path} has no {what} with {options.case!r} in its id; it has {len(tests)}"
        )
    if len(chosen) > 1:
        _list(chosen)
        return
    (record,) = chosen
    try:
        prompt: Any = kept_prompt(path.with_name(PROMPTS), record["id"])
    except ReportError as error:
        print_line(f"the prompt's two ends only: {error}")
        prompt = record["prompt"]
    if options.json:
        print_line(json.dumps(record | {"prompt": prompt}, ensure_ascii=False, indent=2))
        return
    for line in _lines(record, prompt):
        print_line(line)


def _short(name: str) -> str:
    """``single_needle[...]`` of a node id."""
    return name.rpartition("::")[2].removeprefix("test_")


def _list(tests: Sequence[Mapping[str, Any]]) -> None:
    from pytest_llmprobe.report.terminal import printable

    tests = sorted(tests, key=lambda test: FIRST_LISTED.index(test["outcome"]))
    for test in tests[:MOST_LISTED]:
        why = f"  {printable(test['explanation'])[:80]}" if test["explanation"] else ""
        print_line(f"{test['outcome']:7}  {printable(_short(test['id']))}{why}")
    if len(tests) > MOST_LISTED:
        print_line(f"[...] {len(tests)} in all: name a longer part of an id")


def _lines(record: Mapping[str, Any], prompt: Any) -> list[str]:
    from pytest_llmprobe.report.prompt_file import read_prompt
    from pytest_llmprobe.report.terminal import printable

    lines = [printable(record["id"])]
    for name in FIRST:
        if record.get(name):
            value = record[name]
            said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            lines.append(f"{name}: {printable(said)}")
    parts = {"prompt": read_prompt(prompt), "thought": record.get("thought")}
    parts |= {"received": record["received"], "expected": read_prompt(record["expected"])}
    for name, text in parts.items():
        if text:
            lines += ["", f"--- {name}", *(printable(line) for line in text.split("\n"))]
    return lines
