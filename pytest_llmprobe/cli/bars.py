"""``llmprobe bars``: what a run has measured becomes what the model must reach.

What reads reports is imported when the command runs: listing commands must stay quick.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_llmprobe.cli.reports import STORAGE, print_line, read_report
from pytest_llmprobe.errors import ReportError, SettingsError

CLUSTERED = "ci95_clustered"
FEWEST = 5
"""Cases that a bar needs."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command on the parser's subparsers."""
    parser = commands.add_parser("bars", help="keep a run's pass rates as its model's bars")
    parser.description = (
        "Write [tool.llmprobe.gates.MODEL]: for each experiment of the run the lower end of the "
        "95 % interval of its pass rate, rounded down to hundredths; each with the rate that it "
        "finds and how often it would fail this model on other cases. Everything else in the file "
        "stays as it is, and so does an experiment that is false there."
    )
    parser.add_argument("report", metavar="RUN", help="a report, a run's folder, its name, or last")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="default: llmprobe.toml or pyproject.toml here; else a new llmprobe.toml",
    )
    parser.add_argument("--print", action="store_true", help="print the table and write nothing")
    parser.add_argument(
        "--storage", type=Path, default=STORAGE, metavar="DIR", help=f"default: {STORAGE}"
    )
    parser.set_defaults(run=_bars)


def _bars(options: argparse.Namespace) -> None:
    from pytest_llmprobe.models.bars_table import lines_of, with_bars
    from pytest_llmprobe.models.settings import project_file
    from pytest_llmprobe.report.files import write_atomically

    _, report = read_report(options.report, options.storage)
    _refuse_unfinished(report)
    path = options.config or project_file(Path()) or Path("llmprobe.toml")
    text, table, present = _place(path, report["model"])
    bars, left = bars_of_run(report["experiments"], present)
    for line in left:
        print_line(f"# {line}")
    if not bars:
        raise SettingsError("no experiment of this run has a pass rate to keep")
    for experiment in report["experiments"]:
        if (bar := bars.get(experiment["name"])) is not None:
            print_line(f"# {power_of(experiment, bar)}")
    for line in lines_of(table, bars):
        print_line(line)
    if options.print:
        return
    try:
        changed = with_bars(text, table, bars)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    write_atomically(path.resolve(), changed)  # a link stays one
    print_line(f"{path}: {len(bars)} bars of {report['model']}")


def _place(path: Path, model: str) -> tuple[str, tuple[str, ...], Mapping[str, Any]]:
    """A configuration file's text, the table of a model's bars in it, and what that holds."""
    from pytest_llmprobe.models.registry import registered
    from pytest_llmprobe.models.settings import in_tables, read_gates, read_settings, read_toml
    from pytest_llmprobe.report.model_names import canonical_name

    if path.exists() and not path.is_file():
        raise SettingsError(f"{path} is no file")
    settings = read_settings(path if path.exists() else None)
    text = path.read_bytes().decode("utf-8") if path.exists() else ""
    present = read_gates(settings, model, Path()).get(model, {})
    known = registered(settings.get("models", {}))
    spelt = (k for k in settings.get("gates", {}) if canonical_name(k, known, Path()) == model)
    return text, (*in_tables(path, read_toml(text)), "gates", next(spelt, model)), present


def _refuse_unfinished(report: Mapping[str, Any]) -> None:
    if report["status"] != "complete":
        raise ReportError(f"the run was {report['status']}: its rates are no measure of the model")
    for experiment in report["experiments"]:
        if experiment["errors"]:
            raise ReportError(
                f"{experiment['errors']} cases of {experiment['name']} ended in an error: run it "
                "again without"
            )


def bars_of_run(
    experiments: Sequence[Mapping[str, Any]], present: Mapping[str, Any]
) -> tuple[dict[str, float], list[str]]:
    """Bars by experiment, and why others get none.

    Args:
        experiments: Of the report.
        present: The model's entries in the configuration.
    """
    from pytest_llmprobe.models.bars_table import lower_bar

    bars, left = dict[str, float](), list[str]()
    for experiment in experiments:
        name, n, collected = experiment["name"], experiment["n"], experiment["collected"]
        own = any(check["metric"] == "pass_rate" for check in experiment["gate"])
        bar = lower_bar(experiment["ci95_clustered"][0]) if n else None
        if present.get(name) is False:
            left.append(f"{name}: stays false")
        elif not experiment.get("judged", True):
            left.append(f"{name}: no bar, its marker says that it is no ground for a verdict")
        elif own and name not in present:
            left.append(f"{name}: its eval file has a bar for every model")
        elif n < collected:
            left.append(f"{name}: no bar, {n} of {collected} cases were measured")
        elif n < FEWEST:
            left.append(f"{name}: no bar, {n} cases are too few")
        elif bar is None:
            left.append(f"{name}: no bar, {experiment['passed']} of {n} passed")
        else:
            bars[name] = bar
    return bars, left


def power_of(experiment: Mapping[str, Any], bar: float) -> str:
    """What a bar on the pass rate does to a model that is as good as this one, and what it finds.

    Args:
        experiment: Of the report. Where cases share a haystack, so many independent ones count as
            make its interval as wide.
        bar: Below this pass rate the gate fails.
    """
    from pytest_llmprobe.statistics.power import bar_power, found_by_bar

    n, rate = experiment["n"], experiment["pass_rate"]
    plain, clustered = (high - low for low, high in (experiment[k] for k in ("ci95", CLUSTERED)))
    effective = max(1, round(n * min(1.0, (plain / clustered) ** 2)))
    counted = f", as {effective} independent ones" if effective < n else ""
    found = found_by_bar(effective, bar)
    finds = "no rate" if found is None else f"a true rate of {found:.2f}"
    return (
        f"{experiment['name']}: {n} cases{counted}: {bar:.2f} fails {finds} in 80 % of runs, this "
        f"model's {rate:.3f} on other cases in {bar_power(effective, bar, rate):.1%}"
    )
