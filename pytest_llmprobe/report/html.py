"""A run's report as one page that needs no network and no server."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pytest_llmprobe.figures.files import can_draw
from pytest_llmprobe.report import comparison_text
from pytest_llmprobe.report.charts import charts, is_drawn
from pytest_llmprobe.report.comparison import Comparison
from pytest_llmprobe.report.comparison_pairs import ComparedExperiment, ComparedScore
from pytest_llmprobe.report.fidelity_text import HEADER as FIDELITY
from pytest_llmprobe.report.fidelity_text import fidelity_notes, fidelity_rows
from pytest_llmprobe.report.misses_text import cut_off_warnings, miss_lines
from pytest_llmprobe.report.page_prompts import page_prompts
from pytest_llmprobe.report.record import MAX_TEXT, Outcome, bounded
from pytest_llmprobe.report.self_check_text import self_check_lines, self_check_warning
from pytest_llmprobe.report.terminal import measured, remarks, said_in_summary, with_interval
from pytest_llmprobe.report.weights_text import weights_lines
from pytest_llmprobe.report.word_diff import word_diff

PAGE = Path(__file__).with_name("page")

UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""Characters that cannot be written, hide what follows, or reorder it."""

FACTS = {"Model": "model_info", "Options": "config", "Environment": "environment"}

MAX_FACT = 500
"""Characters of an option or of a summary's entry that are shown."""


def html(
    report: Mapping[str, Any], comparison: Comparison | None = None, prompts: Path | None = None
) -> str:
    """The whole page of a report as one text; `html_pieces`."""
    return "".join(html_pieces(report, comparison, prompts))


def html_pieces(
    report: Mapping[str, Any], comparison: Comparison | None = None, prompts: Path | None = None
) -> Iterator[str]:
    """The whole page of a report: verdict, experiments, charts, timings, every case, options.

    Names, answers and data are untrusted: all text is escaped, cases are data that the page's own
    script shows as text, and a content security policy lets no other script run and no address be
    asked. Of ``prompts``, the run's file of them, the page has what has room.
    """
    environment = page_environment()
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    experiments = report["experiments"]
    compared = comparison.experiments if comparison else []
    drawn = any(is_drawn(data) for e in experiments for data in e["summary"].values())
    return environment.get_template("page.html.jinja").generate(
        report=report,
        comparison=comparison,
        compared_text=comparison_text,
        style=page_style(),
        script=Markup(script),
        compared_notes=comparison_text.all_notes(comparison) if comparison else [],
        rows=[_row(experiment) for experiment in experiments],
        notes=[
            *miss_lines(experiments),
            *remarks(experiments),
            *weights_lines(report["model_info"]),
            *self_check_lines(report.get("self_check")),
        ],
        fidelity=(FIDELITY, fidelity_rows(experiments), fidelity_notes(experiments)),
        warnings=[*cut_off_warnings(experiments), self_check_warning(report.get("self_check"))],
        scores=_scores(report, compared),
        drawn=drawn,
        charts=[(e["name"], c) for e in experiments for c in charts(e["summary"], e["chance"])],
        other=_other(experiments),
        outcomes=[*get_args(Outcome), *(("lost", "gained") if comparison else ())],
        cases=map(Markup, _cases(report, compared)),
        prompts=Markup(_in_script(page_prompts(prompts, report["tests"]) if prompts else {})),
        facts=[
            (title, [(key, _fact(report[part][key])) for key in sorted(report[part])])
            for title, part in FACTS.items()
        ],
    )


def page_environment() -> Environment:
    """What pages are made with: texts are escaped and printable, what is missing is an error."""
    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(PAGE),
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(colour=_colour, seconds=_seconds, encoded=_base64, hash=_hash)
    return environment


def page_style() -> Markup:
    """The style of all pages."""
    return Markup((PAGE / "page.css").read_text(encoding="utf-8"))


def _printable(value: Any) -> Any:
    """What a template shows, without characters that no page should hold."""
    return UNPRINTABLE.sub("\ufffd", value) if type(value) is str else value


def _hash(text: str) -> str:
    """For the content security policy, which lets exactly this text in."""
    return _base64(hashlib.sha256(text.encode()).digest())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _colour(verdict: str) -> str:
    return {"PASS": "good", "better": "good", "FAIL": "bad", "worse": "bad"}.get(verdict, "")


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"


def _row(experiment: Mapping[str, Any]) -> dict[str, Any]:
    rate, chance, speed = measured(experiment)
    times = experiment["timings"]
    seconds = [_seconds(times[key]) for key in ("generation_s", "p50_s", "p95_s")]
    counts = [times[key] for key in ("prompt_tokens", "generated_tokens")]
    tokens = ["unknown" if count is None else f"{count:,}" for count in counts]
    shown = {"rate": rate, "chance": chance, "times": [*seconds, *tokens, speed]}
    return {**experiment, "ends": experiment["ci95_clustered"] or (0.0, 1.0), "shown": shown}


def _scores(report: Mapping[str, Any], compared: Sequence[ComparedExperiment]) -> list[list[str]]:
    changes = {(e.name, name): score for e in compared for name, score in e.scores.items()}
    rows = []
    for experiment in report["experiments"]:
        for name, score in experiment["scores"].items():
            mean = with_interval(score["mean"], score["ci95"])
            row = [experiment["name"], name, str(score["n"]), mean]
            if compared:
                row += _change(changes.get((experiment["name"], name)))
            rows.append(row)
    return rows


def _change(score: ComparedScore | None) -> list[str]:
    if score is None:
        return ["-", "-", "-"]
    change = with_interval(score.change.mean, score.change.ci95, "+")
    return [f"{score.first:.3g}", change, f"{score.p_adjusted:.2g}"]


def _other(experiments: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Entries of the summaries that no chart shows."""
    return [
        (f"{e['name']}: {key.replace('_', ' ')}", _fact(data))
        for e in experiments
        for key, data in e["summary"].items()
        if not (is_drawn(data) and can_draw())
    ]


def _fact(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return said_in_summary(text, MAX_FACT)


def _cases(report: Mapping[str, Any], compared: Sequence[ComparedExperiment]) -> Iterator[str]:
    """The cases as JSON that cannot end the script element it stands in, in pieces."""
    flips = {
        flip.id: {"change": what, "before": flip.first, "diff": word_diff(flip.first, flip.second)}
        for experiment in compared
        for what, flipped in (("lost", experiment.lost), ("gained", experiment.gained))
        for flip in flipped
    }
    yield "["
    for number, test in enumerate(report["tests"]):
        case = {
            key: bounded(value, MAX_TEXT) if isinstance(value, str) else value
            for key, value in (test | flips.get(test["id"], {})).items()
            if value not in (None, "", [], {}) and value is not False and key != "is_correct"
        }
        yield f"{',' if number else ''}{_in_script(case)}"
    yield "]"


def _in_script(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
