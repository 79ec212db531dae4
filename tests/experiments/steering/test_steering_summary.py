"""What a sweep over Delta shows, on records made by hand."""

import json
from dataclasses import dataclass, field
from math import comb

import pytest

from pytest_llmprobe.experiments.steering.summary import (
    PREDICTORS,
    against_unsteered,
    pairs,
    predictive_power,
    steering_summary,
    win_rates,
)
from pytest_llmprobe.report.summary_function import checked


@dataclass
class Made:
    """A judged record."""

    id: str
    is_correct: bool
    params: dict
    scores: dict = field(default_factory=dict)
    size: int = 500
    group: str | None = None
    prompt_characters: int = 100


def made(case, delta, passed, size=500, group=None, style="plain", **scores):
    name = f"test_x[{case}-delta-{delta:g}]" if delta is not None else f"test_x[{case}]"
    params = {"style": style} | ({} if delta is None else {"delta": delta})
    return Made(name, passed, params, scores, size, group)


def sweep(outcomes):
    """Records of cases 0, 1, ... from a string of + and - for each Delta."""
    return [
        made(f"case-{number}", delta, mark == "+", size=500 + 500 * (number % 2))
        for delta, marks in outcomes.items()
        for number, mark in enumerate(marks)
    ]


OUTCOMES = {-2: "---------+", 0: "+++-------", 1: "++++++----", 5: "+++++++++-"}


def test_each_delta_is_compared_with_0_on_the_same_cases():
    lost, some, most = against_unsteered(sweep(OUTCOMES))
    assert [entry["delta"] for entry in (lost, some, most)] == [-2, 1, 5]
    assert [(e["gained"], e["lost"], e["n"]) for e in (lost, some, most)] == [
        (1, 3, 10),
        (3, 0, 10),
        (6, 0, 10),
    ]
    assert most["difference"] == pytest.approx(0.6)
    assert most["p"] == pytest.approx(2 / 2**6)
    assert lost["p"] == pytest.approx(2 * (comb(4, 0) + comb(4, 1)) / 2**4)
    low, high = most["ci95"]
    assert 0 < low < 0.6 < high <= 1


def test_cases_that_share_a_text_count_less():
    alone = sweep({0: "--------", 1: "++++++++"})
    shared = sweep({0: "--------", 1: "++++++++"})
    for number, record in enumerate(shared):
        record.group = f"text-{number % 8 // 4}"
    assert against_unsteered(alone)[0]["p"] == pytest.approx(2 / 2**8)
    one = sweep({0: "----++++", 1: "++++++++"})
    for number, record in enumerate(one):
        record.group = f"text-{number % 8 // 4}"
    apart = sweep({0: "----++++", 1: "++++++++"})
    assert against_unsteered(one)[0]["p"] > against_unsteered(apart)[0]["p"]


def test_a_case_without_a_partner_is_in_no_pair():
    records = [made("a", 0, True), made("b", 1, True), made("c", 0, True), made("c", 1, False)]
    ((delta, compared),) = pairs(records)
    assert delta == 1
    assert [(before.id, after.id) for before, after in compared] == [
        ("test_x[c-delta-0]", "test_x[c-delta-1]")
    ]
    assert against_unsteered([made("b", 1, True)]) == []
    assert against_unsteered([]) == []


def test_names_that_end_alike_are_told_apart():
    records = [made(f"a-delta-{n}", delta, n == 1) for n in (1, 2) for delta in (0, -0.5)]
    ((_, compared),) = pairs(records)
    assert all(before.is_correct == after.is_correct for before, after in compared)
    assert len(compared) == 2


# What predicts success


def measured(values, passed, sizes):
    return [
        made(f"case-{n}", 0, ok, size, **dict.fromkeys(PREDICTORS, value))
        for n, (value, ok, size) in enumerate(zip(values, passed, sizes, strict=True))
    ]


def test_predictive_power_is_the_area_under_the_roc_curve():
    passed = [True, True, False, True, False, False]
    records = measured([6, 5, 4, 3, 2, 1], passed, [500, 500, 500, 1000, 1000, 1000])
    records.append(made("case-0", 1, False))  # a steered one has no part in it
    found = predictive_power(records)
    assert list(found) == ["influence", "rollout", "raw_attention", "inverse_length"]
    power = found["influence"]
    assert power["n"] == 6
    assert power["auc"] == pytest.approx(8 / 9)  # of nine pairs one is the wrong way around
    assert power["ci95"][0] <= power["auc"] <= power["ci95"][1]
    assert [(b["value"], b["n"], b["auc"]) for b in power["by_length"]] == [
        (500, 3, 1),
        (1000, 3, 1),
    ]


def test_a_predictor_that_knows_the_length_alone_knows_nothing_within_a_bin():
    passed, sizes = [True, True, True, False, True, False, False, False], [500] * 4 + [1000] * 4
    power = predictive_power(measured([1 / s for s in sizes], passed, sizes))["inverse_length"]
    assert power["auc"] == pytest.approx(0.75)
    assert [entry["auc"] for entry in power["by_length"]] == [0.5, 0.5]


def test_without_both_outcomes_there_is_no_curve():
    power = predictive_power(measured([1, 2], [True, True], [500, 500]))["rollout"]
    assert power["auc"] is power["ci95"] is None
    assert power["n"] == 2


def test_what_was_not_measured_says_so():
    blind = [made("a", 0, True, inverse_length=0.1), made("b", 0, False, inverse_length=0.05)]
    found = predictive_power(blind)
    assert found["influence"] == "not measured: this model's attention cannot be traced"
    assert found["inverse_length"]["auc"] == 1
    assert set(predictive_power([made("a", 1, True)]).values()) == {
        "not measured: nothing at Delta 0"
    }


# Win rates


def test_a_win_is_a_higher_score_where_both_passed():
    pairs_of_scores = [(True, 0.5, True, 0.7), (True, 0.5, True, 0.5), (True, 0.6, True, 0.2)]
    pairs_of_scores += [(True, 0.1, False, 0.9), (False, 0.1, True, 0.9)]
    records = []
    for number, (before, low, after, high) in enumerate(pairs_of_scores):
        records += [
            made(f"c{number}", 0, before, bert_score=low),
            made(f"c{number}", 2, after, bert_score=high),
        ]
    records += [made("without", 0, True), made("without", 2, True), made("none", None, True)]
    (rate,) = win_rates(records)
    assert (rate["value"], rate["n"], rate["ties"]) == (2, 3, 1)
    assert rate["pass_rate"] == pytest.approx(1 / 3)
    assert win_rates(records[-3:]) == []


# All of it


def test_the_summary_is_ready_for_the_report():
    records = sweep(OUTCOMES)
    for number, record in enumerate(records):
        if record.params["delta"] == 0:
            record.scores = {"influence": 1 / (1 + number), "inverse_length": 0.1}
    records += [
        made(f"case-{n}-{style}", None, n < 2, style=style)
        for n in range(4)
        for style in ("capitals", "important")
    ]
    summary = steering_summary(records)
    assert checked(summary) == summary
    json.dumps(summary, allow_nan=False)
    assert [(p["value"], p["pass_rate"]) for p in summary["by_delta"]] == [
        (-2, 0.1),
        (0, 0.3),
        (1, 0.6),
        (5, 0.9),
    ]
    styles = {p["value"]: (p["n"], p["pass_rate"]) for p in summary["unsteered_by_style"]}
    assert styles == {"plain": (10, 0.3), "capitals": (4, 0.5), "important": (4, 0.5)}
    assert summary["delta_by_length"]["rows"] == [-2, 0, 1, 5]
    assert summary["delta_by_length"]["columns"] == [500, 1000]
    assert summary["delta_by_length"]["n"] == [[5, 5]] * 4
    assert steering_summary([])["by_delta"] == []


def test_sets_of_layers_are_compared_with_the_same_unsteered_cases():
    records = []
    for number in range(4):
        records.append(made(f"c{number}", 0, number < 2, size=500))
        for layers, passes in (("all", 4), ("first", 1)):
            record = made(f"c{number}", 2, number < passes, size=500)
            record.id += f"-layers-{layers}"
            record.params["layers"] = layers
            records.append(record)
    summary = checked(steering_summary(records))
    rates = {
        layers: [point["pass_rate"] for point in summary[f"layers {layers}: by_delta"]]
        for layers in ("all", "first")
    }
    assert rates == {"all": [0.5, 1.0], "first": [0.5, 0.25]}
    (flips,) = summary["layers first: against_delta_0"]
    assert (flips["n"], flips["gained"], flips["lost"]) == (4, 0, 1)
    assert summary["layers_by_length"]["rows"] == ["all", "first"]
    assert summary["layers_by_length"]["pass_rate"] == [[1.0], [0.25]]
    alone = [record for record in records if record.params.get("layers") != "first"]
    assert "by_delta" in steering_summary(alone)
