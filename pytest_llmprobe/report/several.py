"""Several models on the same cases: one table, in which the first is the baseline of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pytest_llmprobe.report.check import Verdict
from pytest_llmprobe.report.fidelity_verdict import WORSE
from pytest_llmprobe.report.ladder import Rung
from pytest_llmprobe.report.terminal import aligned, gate_cell, printable

HEADER = (
    *("experiment", "model", "n", "pass rate", "lost", "gained"),
    *("KL mean", "p99", "top-1", "gate", "verdict"),
)

OVERVIEW_VERSION = "1.0"

ALL = "all experiments"


@dataclass(frozen=True)
class ModelRun:
    """One model's run of the evaluations.

    Args:
        name: As the user calls the model, with a number if it is named again.
        code: What its pytest exited with.
        report: What it wrote; None if it wrote none.
        place: Where that is.
        page: Its page, if one was asked for.
    """

    name: str
    code: int
    report: Mapping[str, Any] | None
    place: str | None = None
    page: str | None = None

    @property
    def verdict(self) -> tuple[Verdict, str]:
        """Its gate's, and the reason."""
        if self.report is None:
            return "NOT JUDGED", f"it wrote no report, exit code {self.code}"
        return self.report["gate"]["verdict"], self.report["gate"]["reason"]


def paired_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each experiment of a report its paired outcomes beside its fidelity."""
    compared = {e["name"]: e for e in (report["comparison"] or {}).get("experiments", ())}
    rows = []
    for experiment in report["experiments"]:
        pairs = compared.get(experiment["name"], {})
        rows.append(
            {
                "name": experiment["name"],
                "n": pairs.get("n", 0),
                "lost": len(pairs.get("lost", ())),
                "gained": len(pairs.get("gained", ())),
                "finding": pairs.get("finding"),
                "fidelity": experiment["fidelity"],
            }
        )
    return rows


def displacement_cells(row: Mapping[str, Any]) -> list[str]:
    """KL mean, p99 and top-1 of a row of ``paired_rows``; dashes where they are not known."""
    fidelity = row["fidelity"] or {}
    if not fidelity.get("kl"):
        return ["-"] * 3
    kl, top = fidelity["kl"], fidelity["top1"]["mean"]
    return [f"{kl['mean']:.3g}", f"{kl['p99']:.3g}", f"{top:.4f}"]


def direction_cells(row: Mapping[str, Any]) -> list[str]:
    """Lost and gained cases of a row; dashes without outcomes."""
    return [str(row[name]) if row["n"] else "-" for name in ("lost", "gained")]


def finding(row: Mapping[str, Any]) -> str:
    """The verdict of a row of ``paired_rows``: of displacement and direction, or of outcomes."""
    return (row["fidelity"] or {}).get("verdict") or row.get("finding") or "measured"


def _is_worse(row: Mapping[str, Any]) -> bool:
    return finding(row) in (WORSE, "worse")


def table_rows(runs: Sequence[ModelRun]) -> list[list[str]]:
    """The table under ``HEADER``: for each experiment a row for each model that has run it."""
    reports = [(run.name, run.report) for run in runs if run.report is not None]
    names = dict.fromkeys(e["name"] for _, report in reports for e in report["experiments"])
    by_name = [
        {
            e["name"]: (e, row)
            for e, row in zip(report["experiments"], paired_rows(report), strict=True)
        }
        for _, report in reports
    ]
    found = []
    for name in names:
        for number, (model, _) in enumerate(reports):
            if name not in by_name[number]:
                continue
            experiment, row = by_name[number][name]
            rate = experiment["pass_rate"]
            found.append(
                [
                    name,
                    printable(model),
                    str(experiment["n"]),
                    "-" if rate is None else f"{rate:.3f}",
                    *direction_cells(row),
                    *displacement_cells(row),
                    gate_cell(experiment["gate"], experiment["n"]),
                    finding(row) if number else "baseline",
                ]
            )
    return found


def table(runs: Sequence[ModelRun], width: int | None = None) -> list[str]:
    """The same as lines of text, folded to the columns of a terminal."""
    return aligned([list(HEADER), *table_rows(runs)], (0, 1, 9, 10), width)


def verdict(runs: Sequence[ModelRun], asked: int) -> tuple[Verdict, str, int]:
    """The verdict of all runs, its reason, and what the process exits with.

    The exit code is the first that is neither 0 nor 1, else 1 if any is or a model was not run; the
    verdict agrees with it as that of one run does.

    Args:
        runs: Of the models that were run, at least one.
        asked: How many models were to be.
    """
    odd = [run for run in runs if run.code not in (0, 1)]
    code = odd[0].code if odd else max(run.code for run in runs)
    alike: dict[tuple[Verdict, str], list[str]] = {}
    for run in runs:
        alike.setdefault(run.verdict, []).append(run.name)
    said = [
        f"{', '.join(names)}: {one} ({why})" for (one, why), names in alike.items() if one != "PASS"
    ]
    verdicts = [run.verdict[0] for run in runs]
    if len(runs) < asked:
        said.append(f"{asked - len(runs)} models were not run")
    if odd or len(runs) < asked:
        return "NOT JUDGED", "; ".join(said), max(code, 1)
    if code == 1:
        return ("FAIL" if "FAIL" in verdicts else "NOT JUDGED"), "; ".join(said), code
    if "PASS" in verdicts:
        passed = f"{verdicts.count('PASS')} of {len(runs)} models passed"
        return "PASS", "; ".join([passed, *said]), code
    return "NOT JUDGED", "; ".join(said), code


def rungs(runs: Sequence[ModelRun]) -> dict[str, list[Rung]]:
    """The ladder of each experiment, and of all together where there are several."""
    found: dict[str, list[Rung]] = {}
    pooled = []
    for run in runs[1:]:
        rows = [
            row
            for row in (paired_rows(run.report) if run.report else ())
            if row["n"] and (row["fidelity"] or {}).get("kl")
        ]
        for row in rows:
            kl, counts = row["fidelity"]["kl"], (row["lost"], row["gained"], row["n"])
            rung = Rung(run.name, kl["mean"], kl["ci95"], *counts, _is_worse(row))
            found.setdefault(row["name"], []).append(rung)
        if rows:
            pooled.append(_pooled(run.name, rows))
    return {ALL: pooled, **found} if len(found) > 1 else found


def _pooled(name: str, rows: Sequence[Mapping[str, Any]]) -> Rung:
    tokens = sum(row["fidelity"]["tokens"] for row in rows)
    total = sum(row["fidelity"]["kl"]["mean"] * row["fidelity"]["tokens"] for row in rows)
    lost, gained, n = (sum(row[key] for row in rows) for key in ("lost", "gained", "n"))
    worse = any(_is_worse(row) for row in rows)
    return Rung(name, total / tokens, None, lost, gained, n, worse)


def overview(runs: Sequence[ModelRun], asked: int, timestamp: str) -> dict[str, Any]:
    """What is written as JSON; see docs/report.md."""
    said, reason, code = verdict(runs, asked)
    models = []
    for run in runs:
        own, why = run.verdict
        entry: dict[str, Any] = {
            "model": run.name,
            "exit_code": run.code,
            "report": run.place,
            "gate": {"verdict": own, "reason": why, "checks": []},
            "experiments": [],
        }
        if run.report is not None:
            entry["gate"]["checks"] = run.report["gate"]["checks"]
            rates = {e["name"]: e["pass_rate"] for e in run.report["experiments"]}
            entry["experiments"] = [
                {**row, "pass_rate": rates[row["name"]]} for row in paired_rows(run.report)
            ]
        models.append(entry)
    return {
        "kind": "llmprobe models",
        "schema_version": OVERVIEW_VERSION,
        "timestamp": timestamp,
        "baseline": runs[0].name,
        "exit_code": code,
        "gate": {"verdict": said, "reason": reason},
        "models": models,
    }


def overview_markdown(runs: Sequence[ModelRun], asked: int) -> str:
    """The verdict and the table, for a pull request or a job's summary."""
    from pytest_llmprobe.report.markdown import MARKS, markdown_table, plain_text

    said, reason, _ = verdict(runs, asked)
    title = f"## {MARKS.get(said, '')} llmprobe: {len(runs)} models: {said}"
    return "\n\n".join(
        [title, plain_text(reason, 2_000), markdown_table([HEADER, *table_rows(runs)])]
    )


def overview_page(runs: Sequence[ModelRun], asked: int) -> str:
    """The verdict, the table and the ladder on a page that needs no network."""
    from pytest_llmprobe.report.charts import chart
    from pytest_llmprobe.report.html import page_environment, page_style
    from pytest_llmprobe.report.ladder import draw_ladder

    said, reason, _ = verdict(runs, asked)
    ladders = rungs(runs)
    drawn = [
        one
        for title, some in ladders.items()
        if (one := chart(title, partial(draw_ladder, some))) is not None
    ]
    return (
        page_environment()
        .get_template("several.html.jinja")
        .render(
            runs=runs,
            verdict=said,
            reason=reason,
            header=HEADER,
            rows=table_rows(runs),
            drawn=drawn,
            has_rungs=bool(ladders),
            style=page_style(),
        )
    )
