"""Fidelity in the report: sums over cases, verdicts, bars; against numbers worked out by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.report import fidelity_verdict
from pytest_llmprobe.report.fidelity import (
    FidelityColumns,
    case_fidelity,
    not_measured,
    position_class,
    text_fidelity,
    token_class,
)
from pytest_llmprobe.report.fidelity_gate import fidelity_checks
from pytest_llmprobe.report.fidelity_text import fidelity_lines
from pytest_llmprobe.report.fidelity_verdict import cases_needed, verdict
from pytest_llmprobe.report.plan import Bar
from pytest_llmprobe.statistics.divergence import Fidelity
from pytest_llmprobe.statistics.paired import mcnemar


def case(kl, pieces=None, agrees=None, base=-1.0, candidate=-1.5, **said):
    kl = np.array(kl, float)
    found = Fidelity(
        kl,
        np.array([True] * len(kl) if agrees is None else agrees),
        np.full(len(kl), base),
        np.full(len(kl), candidate),
        None if agrees is None else agrees.index(False),
        None if agrees is None else 0.5,
    )
    said = {"prompt_changed": False, "remark": None} | said
    return case_fidelity(found, pieces or ["x"] * len(kl), **said)


def columns(*cases):
    found = FidelityColumns()
    for number, one in enumerate(cases):
        found.add(f"case {number}", one, number)
    return found.as_dict()


def test_the_numbers_of_an_experiment_are_those_of_its_tokens():
    found = columns(
        case([0.0, 0.2, 0.4], ["The", " answer", "{"], [True, False, True]),
        case([0.1], ["7"], prompt_changed=True),
    )
    assert (found["cases"], found["tokens"]) == (2, 4)
    assert found["kl"]["mean"] == pytest.approx(0.175)
    assert found["kl"]["median"] == pytest.approx(0.15)
    assert found["kl"]["max"] == 0.4
    assert found["top1"]["mean"] == 0.75
    assert found["perplexity"]["base"] == pytest.approx(math.e)
    assert found["perplexity"]["increase"] == pytest.approx(math.exp(0.5) - 1)
    assert (found["diverged"], found["prompts_changed"], found["same"]) == (1, 1, False)
    assert found["by"]["position"]["1"] == {"n": 2, "kl": pytest.approx(0.05)}
    assert found["by"]["token_class"]["digits"] == {"n": 1, "kl": pytest.approx(0.1)}
    assert found["by"]["token_class"]["code"] == {"n": 1, "kl": pytest.approx(0.4)}
    first = {"kl": 0.4, "id": "case 0", "before": "The answer", "token": "{"}
    assert found["worst"][0] == first
    assert [worst["kl"] for worst in found["worst"]] == [0.4, 0.2, 0.1]


def test_only_the_ten_worst_tokens_are_named():
    found = columns(*(case([n / 100, n / 200]) for n in range(1, 21)))
    assert [round(100 * worst["kl"]) for worst in found["worst"]] == [*range(20, 10, -1)]


def test_what_was_not_measured_is_counted_by_its_reason():
    other = text_fidelity(-10.0, -20.0, 10, "another tokenizer")
    found = columns(not_measured("too long"), not_measured("too long"), other)
    assert found["remarks"] == {"another tokenizer": 1, "too long": 2}
    assert found["kl"] is None
    bits = {"base": 1 / math.log(2), "candidate": 2 / math.log(2)}
    assert found["bits_per_byte"] == pytest.approx(bits)
    assert columns() is None


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        (" 12", "digits"),
        ("x2", "digits"),
        ("}", "code"),
        (" ==", "code"),
        (",", "punctuation"),
        (" word", "other"),
        ("\n", "other"),
        ("été", "other"),
        ("", "other"),
        ("...", "punctuation"),
    ],
)
def test_classes_of_tokens(piece, expected):
    assert token_class(piece) == expected


def test_classes_of_positions_double_and_leave_no_gap():
    found = [position_class(place) for place in range(17)]
    assert found[:6] == ["1", "2", "3-4", "3-4", "5-8", "5-8"]
    assert (found[7], found[8], found[15], found[16]) == ("5-8", "9-16", "9-16", "17-32")


def outcomes(lost, gained, n=100, finding="no change found"):
    flips = {"lost": [0] * lost, "gained": [0] * gained}
    return SimpleNamespace(n=n, finding=finding, reason="p = 0.5", **flips)


def test_the_three_verdicts():
    different, same = columns(case([0.1, 0.2])), columns(case([0.0, 5e-7]))
    assert verdict(same, outcomes(3, 1))[0] == "the same"
    assert verdict(different, outcomes(0, 5))[0] == "different, not worse"
    assert verdict(different, outcomes(20, 1, finding="worse"))[0] == "different and worse"
    assert verdict(different, None)[0] == "different, direction not known"


def test_it_says_how_many_more_cases_would_tell_a_loss_from_chance():
    _, reason = verdict(columns(case([0.1])), outcomes(10, 3))
    needed = cases_needed(0.07, 0.13)
    assert f"about {needed - 100} more cases" in reason
    different = columns(case([0.1]))
    unseen = cases_needed(0.05, 0.06)
    assert (
        f"loss of 5% of the cases, about {unseen - 100} more"
        in verdict(different, outcomes(3, 3))[1]
    )
    assert "more" not in verdict(different, outcomes(3, 3, n=1000))[1]


def test_the_cases_needed_find_the_loss_in_four_runs_of_five():
    change, discordance = 0.1, 0.2
    needed = cases_needed(change, discordance)
    random = np.random.default_rng(0)
    share = [(discordance + change) / 2, (discordance - change) / 2, 1 - discordance]
    lost, gained, _ = random.multinomial(needed, share, size=400).T
    pairs = list(zip(lost.tolist(), gained.tolist(), strict=True))
    found = np.mean([mcnemar(a, b) < 0.05 for a, b in pairs])
    assert 0.73 <= found <= 0.87


def checks(found, **bar):
    return fidelity_checks({"name": "x", "fidelity": found}, Bar(**bar))


def test_bars_hold_kl_and_perplexity_from_above_and_top1_from_below():
    found = columns(case([0.1, 0.3], agrees=[True, False]))
    verdicts = {
        (check.metric, check.bar): check.verdict
        for kl, top1, increase in ((0.2, 0.5, 0.65), (0.19, 0.51, 0.64))
        for check in checks(found, kl=kl, top1=top1, perplexity={"max_increase": increase})
    }
    assert [metric for (metric, _), said in verdicts.items() if said == "PASS"] == [
        *("kl", "top1", "perplexity increase")
    ]
    assert len(verdicts) == 6


def test_a_significant_bar_fails_only_beyond_the_interval():
    found = columns(*(case([n / 10]) for n in range(10)))
    low = found["kl"]["ci95"][0]
    (inside,) = checks(found, kl=(low + 0.45) / 2, rule="significant")
    (beyond,) = checks(found, kl=low * 0.9, rule="significant")
    (observed,) = checks(found, kl=(low + 0.45) / 2)
    assert [inside.verdict, beyond.verdict, observed.verdict] == ["PASS", "FAIL", "FAIL"]


def test_without_a_baseline_or_with_cases_left_out_a_bar_is_not_passed():
    (check,) = checks(None, kl=0.1)
    assert (check.verdict, "--llmprobe-compare" in check.reason) == ("NOT JUDGED", True)
    (check,) = checks(columns(case([0.05]), not_measured("too long")), kl=0.1)
    assert (check.verdict, "too long" in check.reason) == ("NOT JUDGED", True)
    (check,) = checks(columns(case([0.5]), not_measured("too long")), kl=0.1)
    assert check.verdict == "FAIL"


@pytest.mark.parametrize(
    "bar",
    [
        {"kl": -1},
        {"kl": "low"},
        {"kl": True},
        {"kl": math.nan},
        {"top1": 1.5},
        {"perplexity": 0.1},
        {"perplexity": {"max": 0.1}},
        {"perplexity": {"max_increase": None}},
    ],
)
def test_an_impossible_bar_is_refused(bar):
    with pytest.raises(SettingsError):
        Bar(**bar)


def test_the_terminal_says_verdict_numbers_and_the_worst_token():
    found = columns(case([0.0, 0.4], ["a", "b\x1b[31m"]))
    found["verdict"], found["reason"] = verdict(found, outcomes(2, 1))
    (title, line, reason, worst) = fidelity_lines([{"name": "x", "fidelity": found}])
    assert "fidelity" in title
    assert "different, not worse" in line
    assert "KL mean 0.2" in line
    assert "2 lost, 1 gained of 100" in reason
    assert "KL 0.4 at '...a[b" in worst
    assert "\x1b" not in worst
    assert fidelity_lines([{"name": "x", "fidelity": None}]) == []


def test_conclude_writes_verdicts_beside_the_experiments_of_the_same_name():
    experiments = [{"name": "x", "fidelity": columns(case([0.1]))}, {"name": "y", "fidelity": None}]
    compared = SimpleNamespace(name="x", **vars(outcomes(9, 0, finding="worse")))
    fidelity_verdict.conclude(experiments, SimpleNamespace(experiments=[compared]))
    assert experiments[0]["fidelity"]["verdict"] == "different and worse"
