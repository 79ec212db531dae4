"""``llmprobe compare``, ``report`` and ``history``: what finished runs say, without a model.

What reads reports is imported when a command runs: listing commands must stay quick.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.errors import ReportError, SettingsError

if TYPE_CHECKING:
    from pytest_llmprobe.report.baseline import Baseline

STORAGE = Path(".llmprobe")
RUN = "a report, a run's folder, last, or a baseline: its path, NAME or MODEL/NAME"


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the commands on the parser's subparsers."""
    comparing = commands.add_parser("compare", help="compare two runs, case by case")
    reporting = commands.add_parser("report", help="write a run's report as HTML or markdown")
    listing = commands.add_parser("history", help="list pass rates over the saved runs")
    _add_compare(comparing)
    _add_report(reporting)
    _add_history(listing)
    for parser in (comparing, reporting, listing):
        parser.add_argument(
            "--storage", type=Path, default=STORAGE, metavar="DIR", help=f"default: {STORAGE}"
        )


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compare run B with the earlier run A: what cannot be compared, pass rates of the same "
        "cases, flipped cases, what else was not the same."
    )
    parser.add_argument("first", metavar="A", help=RUN)
    parser.add_argument("second", metavar="B", help="the run in question, given like A")
    parser.add_argument(
        "--fail-on",
        choices=("not-judged", "worse", "never"),
        default="not-judged",
        help="exit code 1 if an experiment is worse or has errors (worse), or if it could not be "
        "judged either (not-judged, the default)",
    )
    parser.add_argument(
        "--same-prompts",
        action="store_true",
        help="an experiment with other prompts in B than in A may be worse, and is else not judged",
    )
    parser.set_defaults(run=_compare)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write a finished run's report again, in a form for people."
    parser.add_argument("report", metavar="RUN", help="a report, a run's folder, or last")
    parser.add_argument("--html", type=Path, metavar="OUT", help="a page without network")
    parser.add_argument("--md", type=Path, metavar="OUT", help="markdown for a pull request")
    parser.add_argument("--csv", type=Path, metavar="OUT", help="a row for each case")
    parser.add_argument("--parquet", type=Path, metavar="OUT", help="the same for data frames")
    needle = "folder for results_<model>_<timestamp>.json, as NeedleThreadingTest writes it"
    parser.add_argument("--needle-results", type=Path, metavar="DIR", help=needle)
    parser.add_argument("--compare", metavar="A", help=f"with the differences from {RUN}")
    parser.set_defaults(run=_report)


def _add_history(parser: argparse.ArgumentParser) -> None:
    parser.description = "Pass rates of every experiment over the runs of each model."
    parser.add_argument("--model", metavar="M", help="of this model only")
    parser.add_argument("--last", type=int, default=8, metavar="N", help="runs (default: 8)")
    parser.add_argument("--html", type=Path, metavar="OUT", help="as a page with curves")
    parser.set_defaults(run=_history)


def _compare(options: argparse.Namespace) -> None:
    from pytest_llmprobe.report.comparison import compare
    from pytest_llmprobe.report.comparison_text import lines
    from pytest_llmprobe.report.run_file import read_run
    from pytest_llmprobe.report.run_names import called, find_run
    from pytest_llmprobe.report.terminal import folded, printable, terminal_width

    given = options.first, options.second
    paths = [find_run(name, options.storage) for name in given]
    first, second = map(read_run, paths)
    names = called(given[0], paths[0], first.model, second.model), given[1]
    comparison = compare(first, second, names, same_prompts=options.same_prompts)
    width = terminal_width()
    for line in lines(comparison, width):
        for part in folded(line, width):
            print_line(part)
    verdict, reason = comparison.verdict
    if options.fail_on == "never" and verdict == "FAIL":
        verdict, reason = "NOT JUDGED", f"--fail-on never; {reason}"
    print_line(f"llmprobe: GATE {verdict} ({printable(reason)})")
    if verdict == "FAIL" or (verdict == "NOT JUDGED" and options.fail_on == "not-judged"):
        raise SystemExit(1)


def _report(options: argparse.Namespace) -> None:
    from pytest_llmprobe.data.safe_writing import check_place
    from pytest_llmprobe.report.comparison import compare
    from pytest_llmprobe.report.files import check_all_writable, write_atomically
    from pytest_llmprobe.report.prompt_file import PROMPTS
    from pytest_llmprobe.report.run_file import read_run, reduce_report
    from pytest_llmprobe.report.run_names import called, find_run

    outputs = [p for p in (options.html, options.md, options.csv, options.parquet) if p is not None]
    if not outputs and options.needle_results is None:
        raise SettingsError(
            "report writes nothing: give --html OUT, --md OUT, --csv OUT, --parquet OUT or "
            "--needle-results DIR"
        )
    check_all_writable(*outputs)
    if options.needle_results is not None:
        check_place(options.needle_results, "--needle-results", folder=True)
    place, report = read_report(options.report, options.storage)
    prompts = place.with_name(PROMPTS)
    if options.needle_results is not None:
        outputs.append(_needle_results(report, options.needle_results))
    comparison = None
    if options.compare is not None:
        place = find_run(options.compare, options.storage, report["model"])
        first = read_run(place)
        name = called(options.compare, place, first.model, report["model"])
        comparison = compare(first, reduce_report(report), (name, "this run"))
    if options.md is not None:
        from pytest_llmprobe.report.markdown import markdown

        write_atomically(options.md, markdown(report, comparison))
    if options.html is not None:
        from pytest_llmprobe.report.html import html

        write_atomically(options.html, html(report, comparison, prompts))
    if options.csv is not None:
        from pytest_llmprobe.report.table import write_csv

        write_csv(report, options.csv)
    if options.parquet is not None:
        from pytest_llmprobe.report.table import write_parquet

        write_parquet(report, options.parquet)
    for path in outputs:
        print_line(f"written: {path}")


def _needle_results(report: dict[str, Any], folder: Path) -> Path:
    """Write them; the file."""
    from pytest_llmprobe.experiments.needle.results_file import needle_results, results_name
    from pytest_llmprobe.report.files import check_writable, to_json, write_atomically

    path = folder / results_name(report)
    results = needle_results(report)
    check_writable(path)
    write_atomically(path, to_json(results, indent=2) + "\n")
    return path


def _history(options: argparse.Namespace) -> None:
    from pytest_llmprobe.report.files import check_writable, write_atomically
    from pytest_llmprobe.report.history import history, history_page
    from pytest_llmprobe.report.run_file import read_run
    from pytest_llmprobe.report.terminal import terminal_width

    if options.html is not None:
        check_writable(options.html)
    runs: dict[str, list[Baseline]] = {}
    for path in sorted(options.storage.glob("runs/*/report.json")):
        try:
            run = read_run(path)
        except ReportError as error:
            print(f"llmprobe: not read: {error}", file=sys.stderr)
            continue
        if options.model in (None, run.model):
            runs.setdefault(run.model, []).append(run)
    if not runs:
        of_model = f" of {options.model}" if options.model else ""
        raise ReportError(f"there are no runs{of_model} in {options.storage / 'runs'}")
    for model in sorted(runs):
        for line in history(runs[model], options.last, terminal_width()):
            print_line(line)
    if options.html is not None:
        write_atomically(options.html, history_page(runs, options.last))
        print_line(f"written: {options.html}")


def read_report(given: str, storage: Path) -> tuple[Path, dict[str, Any]]:
    """The path of a run's report and what it says, checked against its schema.

    Raises:
        ReportError: There is no such report, or it is damaged.
    """
    from pytest_llmprobe.report.run_file import read_json
    from pytest_llmprobe.report.run_names import find_run
    from pytest_llmprobe.report.schema import validate

    found = find_run(given, storage)
    path = found / "report.json" if found.is_dir() else found
    report = read_json(path)
    validate(report)
    return path, report


def print_line(line: str) -> None:
    """A line on standard output, whatever its encoding."""
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, "replace").decode(encoding))
