"""Several models in one table, and the ladder: how far they are against which way they went."""

import json

import pytest
from some_reports import records, report

from pytest_llmprobe.report.comparison import compare
from pytest_llmprobe.report.fidelity import EMPTY
from pytest_llmprobe.report.fidelity_verdict import conclude
from pytest_llmprobe.report.html import html
from pytest_llmprobe.report.ladder import LEAST, Rung, draw_ladder
from pytest_llmprobe.report.markdown import markdown
from pytest_llmprobe.report.run_file import reduce_report
from pytest_llmprobe.report.schema import validate
from pytest_llmprobe.report.several import (
    ALL,
    ModelRun,
    overview,
    overview_markdown,
    overview_page,
    rungs,
    table,
    verdict,
)

BASE = report(records("p" * 40), records("p" * 10, "threads"))


def measured(kl, tokens=4):
    sums = {"base_log_probability": -1.0 * tokens, "log_probability": -1.5 * tokens}
    each = {"kl": [kl] * tokens, "agrees": [True] * tokens, "pieces": ["<b>"] * tokens}
    most = {"kl_mean": kl, "kl_max": kl, "top1": 1.0, "prompt_changed": False}
    return EMPTY | {"tokens": tokens, **sums, **each, **most}


def candidate(needle, threads, kl, **header):
    made = report(
        records(needle, fidelity=[measured(kl)] * len(needle)),
        records(threads, "threads", fidelity=[measured(kl, 9)] * len(threads)),
        **header,
    )
    comparison = compare(reduce_report(BASE), reduce_report(made), ("main", "this run"))
    conclude(made["experiments"], comparison)
    made["comparison"] = comparison.as_dict()
    validate(made)
    return made


SAME = candidate("p" * 40, "p" * 10, 0.0)
NOISY = candidate("m" + "p" * 39, "p" * 10, 0.01)
BROKEN = candidate("m" * 20 + "p" * 20, "p" * 10, 0.5)


def runs(*reports, code=0):
    names = ("base", "same", "noisy <b>", "broken")
    return [ModelRun(n, code, r, f"{n}.json") for n, r in zip(names, reports, strict=False)]


ALL_FOUR = runs(BASE, SAME, NOISY, BROKEN)


def test_each_experiment_has_a_row_for_each_model_with_both_columns():
    lines = [line.split() for line in table(ALL_FOUR)]
    assert [line[:2] for line in lines[1:5]] == [
        ["needle", name] for name in ("base", "same", "noisy", "broken")
    ]
    assert lines[1][2:] == ["40", "1.000", *["-"] * 5, "MEASURED", "baseline"]
    assert lines[2][4:9] == ["0", "0", "0", "0", "1.0000"]
    assert "different, not worse" in table(ALL_FOUR)[3]
    assert lines[4][4:8] == ["20", "0", "0.5", "0.5"]
    assert "different and worse" in table(ALL_FOUR)[4]


def test_a_ladder_has_a_rung_for_each_candidate_and_one_of_all_experiments():
    found = rungs(ALL_FOUR)
    assert list(found) == [ALL, "needle", "threads"]
    pooled = {rung.name: rung for rung in found[ALL]}
    # 40 cases of 4 tokens and 10 of 9
    mixed = candidate("p" * 40, "p" * 10, 0.01)
    for test in mixed["experiments"]:
        test["fidelity"]["kl"]["mean"] = 0.25 if test["name"] == "needle" else 0.0
    (one,) = rungs(runs(BASE, mixed))[ALL]
    assert one.kl == pytest.approx(0.25 * 160 / 250)
    broken = pooled["broken"]
    assert (broken.lost, broken.gained, broken.n, broken.worse) == (20, 0, 50, True)
    assert not pooled["noisy <b>"].worse
    assert list(rungs([ALL_FOUR[0]])) == []


def test_a_ladder_is_drawn_at_its_divergence_and_its_lost_less_gained():
    figure = draw_ladder(
        [Rung("a", 0.0, None, 0, 0, 9, False), Rung("b", 0.25, [0.1, 0.4], 5, 2, 9, True)]
    )
    (axes,) = figure.axes
    points = [tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == "o"]
    assert points == [(LEAST, 0), (0.25, 3)]
    assert [text.get_text() for text in axes.texts] == ["a", "b"]
    spread = next(line for line in axes.lines if [*line.get_xdata()] == [0.25, 0.25])
    low, high = spread.get_ydata()
    assert (high - low) / 2 == pytest.approx(1.96 * (7 - 9 / 9) ** 0.5)


@pytest.mark.parametrize(
    ("verdicts", "codes", "expected"),
    [
        (("NOT JUDGED", "PASS", "PASS"), (0, 0, 0), ("PASS", 0)),
        (("PASS", "FAIL", "PASS"), (0, 1, 0), ("FAIL", 1)),
        (("NOT JUDGED", "NOT JUDGED", "PASS"), (0, 1, 0), ("NOT JUDGED", 1)),
        (("NOT JUDGED", "NOT JUDGED"), (0, 0), ("NOT JUDGED", 0)),
        (("PASS", None, "FAIL"), (0, 6, 1), ("NOT JUDGED", 6)),
    ],
)
def test_the_verdict_of_all_agrees_with_the_exit_code(verdicts, codes, expected):
    made = [
        ModelRun("m", code, one and {"gate": {"verdict": one, "reason": "why"}})
        for one, code in zip(verdicts, codes, strict=True)
    ]
    said, reason, code = verdict(made, len(made))
    assert (said, code) == expected
    assert verdict(made, len(made) + 1)[::2] == ("NOT JUDGED", max(code, 1))
    assert reason


def test_the_overview_says_of_each_model_its_gate_its_report_and_its_rows():
    found = json.loads(json.dumps(overview(ALL_FOUR, 4, "2026-03-01T12:00:00Z"), allow_nan=False))
    assert (found["baseline"], found["exit_code"]) == ("base", 0)
    assert [one["report"] for one in found["models"]][2:] == ["noisy <b>.json", "broken.json"]
    needle, _ = found["models"][3]["experiments"]
    assert (needle["lost"], needle["gained"], needle["pass_rate"]) == (20, 0, 0.5)
    assert needle["fidelity"]["verdict"] == "different and worse"
    gone = overview([ALL_FOUR[0], ModelRun("gone", 6, None)], 2, "2026-03-01T12:00:00Z")
    assert gone["models"][1]["gate"]["reason"] == "it wrote no report, exit code 6"


def test_the_page_has_the_table_and_the_ladder_and_no_markup_of_a_name():
    page = overview_page(ALL_FOUR, 4)
    assert page.count("data:image/svg+xml") == 3
    assert "noisy &lt;b&gt;" in page
    assert "noisy <b>" not in page
    assert "different and worse" in page
    assert "<img" not in overview_page([ALL_FOUR[0]], 1)
    assert "| needle | broken | 40 | 0.500 | 20 | 0 | 0.5 |" in overview_markdown(ALL_FOUR, 4)


def test_the_page_and_markdown_of_one_run_have_its_fidelity():
    page = html(NOISY)
    assert "<b>" not in page.partition('id="fidelity"')[2].partition("</ul>")[0]
    assert "KL by token class (tokens): other 0.01" in page
    assert 'id="fidelity"' not in html(BASE)
    assert "### Fidelity to the baseline" in markdown(NOISY)
    assert "different, not worse" in markdown(NOISY)
