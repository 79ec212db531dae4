"""Comparisons: what is said first, what is found, why it may be, and how often falsely."""

import json
import random
import re
from dataclasses import replace
from html import unescape

import pytest
from some_reports import CONFIG, ENVIRONMENT, MODEL_INFO, records, report, run

from pytest_llmprobe.report.comparison import compare
from pytest_llmprobe.report.comparison_causes import LAYERS, why
from pytest_llmprobe.report.comparison_text import lines, notes
from pytest_llmprobe.report.html import html
from pytest_llmprobe.report.markdown import markdown
from pytest_llmprobe.report.schema import schema
from pytest_llmprobe.statistics.paired import change_interval, holm, mcnemar


def only(first, second, **options):
    (experiment,) = compare(first, second, **options).experiments
    return experiment


def findings(comparison):
    return {experiment.name: experiment.finding for experiment in comparison.experiments}


# What is found


def test_two_equal_runs_show_no_change_and_what_would_have_been_found():
    found = compare(run(records("p" * 90 + "m" * 10)), run(records("p" * 90 + "m" * 10)))
    (experiment,) = found.experiments
    assert experiment.finding == "no change found"
    assert (experiment.n, experiment.p, experiment.p_adjusted) == (100, 1, 1)
    assert (experiment.lost, experiment.gained, experiment.difference) == ([], [], 0)
    assert 0.05 < experiment.detectable < 0.10
    assert found.verdict[0] == "PASS"
    assert found.remarks == []
    assert found.differences == []


def test_a_significant_loss_is_worse_and_names_the_lost_cases_with_both_answers():
    found = compare(run(records("p" * 20)), run(records("m" * 7 + "p" * 13)))
    (experiment,) = found.experiments
    assert experiment.finding == "worse"
    assert experiment.p == experiment.p_adjusted == mcnemar(7, 0)
    assert (experiment.first_rate, experiment.second_rate) == (1, 0.65)
    assert experiment.ci95[0] < -0.35 < experiment.ci95[1] < 0
    assert [flip.id[-7:] for flip in experiment.lost] == [f"[g000{n}]" for n in range(7)]
    assert (experiment.lost[0].first, experiment.lost[0].second) == ("right", "wrong")
    assert found.verdict == (
        "FAIL",
        "needle: worse: pass rate 1.000 -> 0.650, p = 0.016",
    )


def test_a_significant_gain_is_better_and_passes():
    found = compare(run(records("m" * 7 + "p" * 13)), run(records("p" * 20)))
    assert findings(found) == {"needle": "better"}
    assert len(found.experiments[0].gained) == 7
    assert found.verdict[0] == "PASS"


def test_five_lost_cases_are_not_enough():
    experiment = only(run(records("p" * 20)), run(records("m" * 5 + "p" * 15)))
    assert (experiment.finding, experiment.p) == ("no change found", 0.0625)
    assert experiment.detectable > 0.3


def test_so_few_cases_that_nothing_can_be_found_are_not_judged_unless_all_are_lost():
    found = compare(run(records("ppppp")), run(records("pppmm")))
    (experiment,) = found.experiments
    assert (experiment.finding, experiment.detectable) == ("not judged", None)
    assert "no outcome of 5 cases could tell chance from a change" in experiment.reason
    assert found.verdict[0] == "NOT JUDGED"
    found = compare(run(records("ppppp")), run(records("mmmmm")))
    assert found.verdict == (
        "FAIL",
        "needle: worse: pass rate 1.000 -> 0.000, all of 5 passed cases lost",
    )


def test_several_experiments_are_corrected_together():
    lost = {"a": 7, "b": 8, "c": 0, "d": 1}
    first = run(*(records("p" * 30, name) for name in lost))
    second = run(*(records("m" * k + "p" * (30 - k), name) for name, k in lost.items()))
    found = compare(first, second)
    assert [e.p_adjusted for e in found.experiments] == holm([mcnemar(k, 0) for k in lost.values()])
    assert findings(found) == {
        "a": "worse",
        "b": "worse",
        "c": "no change found",
        "d": "no change found",
    }
    alone = compare(run(records("p" * 30, "d")), run(records("m" * 6 + "p" * 24, "d")))
    assert findings(alone) == {"d": "worse"}  # one of four, it would not be


def test_cases_that_share_a_haystack_count_as_fewer():
    groups = [f"h{n // 5}" for n in range(40)]
    outcomes = "m" * 10 + "p" * 30
    together = only(run(records("p" * 40, group=groups)), run(records(outcomes, group=groups)))
    apart = only(run(records("p" * 40)), run(records(outcomes)))
    assert (together.groups, apart.groups) == (8, 40)
    assert together.effective < apart.effective == 40
    assert (together.finding, apart.finding) == ("no change found", "worse")


def test_noise_widens_the_interval_and_swallows_no_proven_loss():
    quiet = run(records("p" * 800 + "m" * 200))
    noisy = replace(quiet, noise={"needle": 0.10})
    second = run(records("m" * 90 + "p" * 710 + "m" * 200))
    without, within = only(quiet, second), only(noisy, second)
    assert (without.finding, within.finding) == ("worse", "worse")
    assert within.p == without.p == mcnemar(90, 0)
    half = (without.ci95[1] - without.ci95[0]) / 2
    wide = (within.ci95[1] - within.ci95[0]) / 2
    assert wide**2 == pytest.approx(half**2 + 2 * (0.10 * 1.959964) ** 2)


# Clusters


def grouped(sizes, shared=True):
    """Groups of these sizes for ``records``, as measured at collection."""
    groups = [f"g{n}" for n, size in enumerate(sizes) for _ in range(size)]
    return {"group": groups, "shares_prefix": shared}


COLLAPSES = {
    "100 of 100 lost in one group": ([100], [100]),
    "two groups that lose 10 and 50 of 100": ([100, 100], [10, 50]),
    "four groups of 50 that lose 5, 15, 25, 35": ([50] * 4, [5, 15, 25, 35]),
}


@pytest.mark.parametrize("measured", [False, True, None], ids=["labels", "clusters", "unknown"])
@pytest.mark.parametrize("collapse", COLLAPSES)
def test_a_collapse_that_was_green_is_not(collapse, measured):
    sizes, gone = COLLAPSES[collapse]
    options = grouped(sizes, measured)
    after = "".join("m" * g + "p" * (n - g) for n, g in zip(sizes, gone, strict=True))
    first, second = run(records("p" * sum(sizes), **options)), run(records(after, **options))
    verdict = compare(first, second).verdict[0]
    total = sizes == gone
    assert verdict == ("FAIL" if measured is False or total else "NOT JUDGED")


def test_five_small_experiments_that_fall_to_0_at_once_fail():
    names = [f"small{n}" for n in range(5)]
    kept = [records("p" * 90 + "m" * 10, f"big{n}") for n in range(15)]
    options = grouped([3, 3, 3])
    first = run(*kept, *(records("p" * 8 + "m", name, **options) for name in names))
    second = run(*kept, *(records("m" * 9, name, **options) for name in names))
    found = compare(first, second)
    assert {name for name, finding in findings(found).items() if finding == "worse"} == set(names)
    assert found.verdict[0] == "FAIL"


def test_labels_are_single_cases_and_said_to_be():
    options = grouped([20, 20], shared=False)
    experiment = only(run(records("p" * 40, **options)), run(records("m" + "p" * 39, **options)))
    assert (experiment.groups, experiment.n, experiment.labels) == (40, 40, True)
    assert any("are labels: single cases" in note for note in notes(experiment))


def test_one_cluster_has_the_plain_interval_and_a_note():
    options = grouped([32])
    first = run(records("p" * 20 + "m" * 12, **options), records("p" * 60, "other"))
    second = run(records("p" * 19 + "m" * 13, **options), records("p" * 60, "other"))
    experiment = next(e for e in compare(first, second).experiments if e.name == "needle")
    assert experiment.ci95 == change_interval([-1] + [0] * 31, range(32))
    assert any("share one group" in note for note in notes(experiment))


# The suite


def test_a_little_lost_everywhere_is_found_in_the_suite():
    names = [f"e{n:02}" for n in range(20)]
    first = run(*(records("p" * 75, name) for name in names))
    second = run(*(records("mm" + "p" * 73, name) for name in names))
    found = compare(first, second)
    assert set(findings(found).values()) == {"no change found"}
    assert found.suite.finding == "worse"
    assert found.suite.p == pytest.approx(0.5**40)
    assert found.verdict[0] == "FAIL"
    assert found.verdict[1].startswith("(suite): worse: pass rate 1.000 -> 0.973 over 1500 cases")
    assert any(line.startswith("(suite)") for line in lines(found))


def test_an_unchanged_suite_is_judged_whole_and_says_what_would_have_been_found():
    small = records("p" * 15, "small", **grouped([5] * 3))
    same = run(records("p" * 90 + "m" * 10), small)
    found = compare(same, same)
    assert findings(found) == {"needle": "no change found", "small": "with the suite"}
    assert found.verdict == ("PASS", "3 of 3 checks passed")
    assert 0 < found.suite.detectable < 0.12
    text = "\n".join(lines(found))
    assert "small: pass rate 1.000 -> 1.000: 3 independent groups of cases are judged with" in text
    assert "(suite): a drop of 0." in text


def test_what_is_no_ground_for_a_verdict_is_only_reported():
    first = run(records("p" * 30), records("p" * 40, "probe"))
    second = run(records("p" * 30), records("m" * 40, "probe"))
    second.experiments["probe"]["judged"] = False
    found = compare(first, second)
    assert findings(found)["probe"] == "report only"
    assert [check.experiment for check in found.checks] == ["needle"]
    assert found.verdict[0] == "PASS"


# How much worse is allowed


def allowing(drop, outcomes, **options):
    second = run(records(outcomes, **options))
    second.experiments["needle"]["allowed_drop"] = drop
    return compare(run(records("p" * len(outcomes), **options)), second)


@pytest.mark.parametrize(
    ("drop", "outcomes", "verdict"),
    [
        (0.02, "m" * 2 + "p" * 998, "PASS"),  # proven worse, and by less than is allowed
        (0.02, "m" * 12 + "p" * 988, "PASS"),
        (0.02, "m" * 60 + "p" * 940, "FAIL"),
        (0.02, "m" * 20 + "p" * 980, "NOT JUDGED"),
        (0.02, "m" * 1 + "p" * 49, "NOT JUDGED"),
        (0.0, "p" * 500, "NOT JUDGED"),
    ],
)
def test_a_drop_is_allowed_if_the_whole_interval_lies_above_it(drop, outcomes, verdict):
    found = allowing(drop, outcomes)
    (experiment,) = found.experiments
    assert found.verdict[0] == verdict
    low, high = experiment.ci95
    assert (verdict == "PASS") == (low > -drop)
    assert (verdict == "FAIL") == (high < -drop)


def test_what_is_undecided_says_how_many_cases_would_decide():
    (experiment,) = allowing(0.05, "m" * 3 + "p" * 97).experiments
    needed = int(re.search(r"about (\d+) cases", experiment.reason)[1])
    assert 200 < needed < 900
    assert allowing(0.05, ("m" * 3 + "p" * 97) * 9).verdict[0] == "PASS"
    assert "no number of cases" in allowing(0.02, "mm" + "p" * 98).experiments[0].reason


def test_one_cluster_cannot_show_that_a_drop_is_small():
    found = allowing(0.1, "p" * 200, **grouped([200]))
    assert found.verdict[0] == "NOT JUDGED"
    assert "one group of cases" in found.experiments[0].reason


def test_recovery_is_the_ratio_of_the_rates():
    experiment = only(run(records("p" * 40)), run(records("m" * 2 + "p" * 38)))
    assert experiment.recovery == 0.95
    assert "recovery 0.950 of the pass rate" in notes(experiment)
    assert only(run(records("mm")), run(records("pp"))).recovery is None


# What cannot be compared


def test_cases_of_one_run_alone_are_listed_and_left_out():
    found = compare(run(records("p" * 30)), run(records("p" * 10)))
    assert found.experiments[0].n == 10
    assert found.remarks == [
        "needle: 30 cases in the first run, 10 in the second run",
        "needle: 20 cases only in the first run: "
        + ", ".join(f"evals/test_needle.py::test_needle[g{n:04}]" for n in range(10, 15))
        + " and 15 more",
    ]
    assert found.verdict[0] == "NOT JUDGED"
    assert "only 10 of 30 cases of the first run have a pair" in found.verdict[1]
    few = compare(run(records("p" * 30)), run(records("p" * 27)))
    assert few.verdict[0] == "PASS"  # nine of ten are enough
    lost = compare(run(records("p" * 30)), run(records("m" * 15)))
    assert lost.verdict[0] == "FAIL"  # however few they are


def test_an_experiment_of_one_run_alone_is_not_judged():
    names = ("baseline main", "this run")
    first, second = run(records("p" * 9, "a")), run(records("p" * 9, "b"))
    found = compare(first, second, names)
    assert findings(found) == {"a": "not judged", "b": "not judged"}
    assert found.remarks == ["a: only in baseline main", "b: only in this run"]
    assert [check.experiment for check in found.checks] == ["a"]  # "b" is new, nothing is lost
    assert found.verdict[0] == "NOT JUDGED"


def test_what_the_first_run_did_not_measure_is_not_asked_of_the_second():
    first, second = (run(records("p" * 9, "a"), records("s" * 9, "b")) for _ in range(2))
    found = compare(first, second)
    assert findings(found) == {"a": "no change found", "b": "not judged"}
    assert found.verdict == ("PASS", "1 of 1 checks passed")
    broken = compare(first, run(records("p" * 9, "a"), records("e" * 9, "b")))
    assert [check.verdict for check in broken.checks] == ["PASS", "NOT JUDGED"]


CHANGED = {"model_info": MODEL_INFO | {"chat_template_hash": "d" * 16}}
NEXT_DAY = {"model_info": MODEL_INFO | {"date": "2026-11-27"}}
JUDGED_TOGETHER = "cases are paired by id and judged as model and prompt together"


@pytest.mark.parametrize(
    ("before", "after", "changed", "why_so", "finding"),
    [
        pytest.param(
            *("p" * 32, "m" * 32, 32, CHANGED, "worse"),
            id="another template, 32 -> 0: was NOT JUDGED with exit 0",
        ),
        pytest.param(
            *("p" * 40, "m" * 38 + "pp", 38, CHANGED, "worse"),
            id="38 of 40 prompts changed and lost: was PASS on the two left",
        ),
        pytest.param(
            *("p" * 20, "m" * 20, 20, NEXT_DAY, "worse"),
            id="date of today, next day, 20 -> 0: was NOT JUDGED with exit 0",
        ),
        pytest.param(
            *("p" * 40, "p" * 40, 38, {}, "no change found"),
            id="38 of 40 prompts changed and nothing lost",
        ),
        pytest.param(*("m" * 20, "p" * 20, 20, CHANGED, "better"), id="another template helps"),
    ],
)
def test_changed_prompts_are_pairs_all_the_same(before, after, changed, why_so, finding):
    hashes = ["other" if n < changed else f"{n:016x}" for n in range(len(before))]
    first = run(records(before), model_info=MODEL_INFO | {"date": "2026-11-26"})
    second = run(
        records(after, prompt_hash=hashes),
        model_info=MODEL_INFO | {"date": "2026-11-26"} | why_so.get("model_info", {}),
    )
    found = compare(first, second)
    (experiment,) = found.experiments
    assert (experiment.finding, experiment.n) == (finding, len(before))
    assert experiment.prompts_changed == changed
    assert found.verdict[0] == ("FAIL" if finding == "worse" else "PASS")
    of = f"{changed} of {len(before)}"
    assert f"model and prompt together, {of} prompts changed" in experiment.reason
    assert found.prompts.startswith(f"the prompts of {of} cases changed (")
    assert found.prompts.endswith(JUDGED_TOGETHER)
    said = lines(found)
    assert said[1] == found.prompts
    assert not any(line.startswith("not comparable") for line in said)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"chat_template_hash": "d" * 16}, "chat template (chat_template_hash): c"),
        ({"date": "2026-11-27"}, "date: 2026-11-26 -> 2026-11-27"),
        (
            {"template": {"enable_thinking": True}},
            "template arguments (enable_thinking): False -> True",
        ),
        ({"tokenizer_hash": "u"}, "tokenizer (tokenizer_hash): t"),
        ({}, "the evaluation's own text"),
    ],
)
def test_why_prompts_changed_is_said_first(changes, named):
    known = MODEL_INFO | {"date": "2026-11-26", "template": {"enable_thinking": False}}
    second = run(records("pp", prompt_hash="other"), model_info=known | changes)
    assert f"({named}" in compare(run(records("pp"), model_info=known), second).prompts


@pytest.mark.parametrize(
    ("after", "changed", "finding", "verdict"),
    [
        ("p" * 40, 0, "no change found", "PASS"),
        ("p" * 40, 1, "not judged", "NOT JUDGED"),
        ("p" * 40, 40, "not judged", "NOT JUDGED"),
        ("m" * 40, 40, "worse", "FAIL"),
        ("m" * 5 + "p" * 35, 40, "not judged", "NOT JUDGED"),
    ],
)
def test_prompts_that_must_be_the_same_and_are_not_pass_nothing(after, changed, finding, verdict):
    hashes = ["other" if n < changed else f"{n:016x}" for n in range(40)]
    found = compare(
        run(records("p" * 40)), run(records(after, prompt_hash=hashes)), same_prompts=True
    )
    assert (found.experiments[0].finding, found.verdict[0]) == (finding, verdict)


def test_equal_prompts_need_no_word():
    found = compare(run(records("p" * 20)), run(records("p" * 20)))
    assert (found.prompts, found.experiments[0].prompts_changed) == (None, 0)


def test_part_of_the_cases_is_no_ground_for_a_verdict():
    whole, part = run(records("p" * 20)), run(records("m" * 20), collected=40)
    for first, second, which in ((whole, part, "second"), (part, whole, "first")):
        found = compare(first, second)
        assert findings(found) == {"needle": "not judged"}
        assert f"needle: only 20 of 40 cases of the {which} run have a result" in found.remarks
        assert found.verdict[0] == "NOT JUDGED"


def test_an_interrupted_run_is_said_to_be_one():
    found = compare(run(records("pp")), run(records("pp"), status="interrupted"))
    assert found.remarks == ["the second run is interrupted"]


def test_errors_of_the_second_run_fail_and_of_the_first_are_left_out():
    found = compare(run(records("p" * 20)), run(records("e" + "p" * 19)))
    assert findings(found) == {"needle": "not judged"}
    assert found.verdict == ("FAIL", "needle: 1 of 20 cases ended in an error")
    found = compare(run(records("e" + "p" * 19)), run(records("p" * 20)))
    assert found.verdict[0] == "PASS"
    assert found.experiments[0].n == 19


def test_cases_that_are_skipped_now_cannot_hide_a_loss():
    found = compare(run(records("p" * 20)), run(records("s" * 10 + "p" * 10)))
    assert findings(found) == {"needle": "not judged"}
    assert "10 cases that were measured in the first run could not be in the second" in (
        found.experiments[0].reason
    )
    both = compare(run(records("s" * 10 + "p" * 10)), run(records("s" * 10 + "p" * 10)))
    assert findings(both) == {"needle": "no change found"}


def test_runs_without_a_case_in_common_are_not_judged():
    found = compare(run(records("s" * 5)), run(records("s" * 5)))
    assert found.experiments[0].reason == "no case was measured in both runs"
    empty = compare(run(), run())
    assert (empty.experiments, empty.verdict[0]) == ([], "NOT JUDGED")


def test_another_model_is_the_normal_case_and_no_obstacle():
    found = compare(run(records("p")), run(records("p"), model="org/new"))
    assert found.remarks == []


# Scores and times


def test_scores_are_compared_but_decide_nothing():
    scores = [{"f1": n / 40, "loss": 1.0} for n in range(40)]
    lower = [{"f1": n / 40 - 0.1 - n % 3 / 100, "loss": 1.0} for n in range(40)]
    found = compare(run(records("p" * 40, scores=scores)), run(records("p" * 40, scores=lower)))
    (experiment,) = found.experiments
    f1, loss = experiment.scores["f1"], experiment.scores["loss"]
    assert f1.second - f1.first == pytest.approx(f1.change.mean)
    assert f1.change.ci95[0] < f1.change.mean < f1.change.ci95[1] < 0
    assert f1.change.p < 0.001
    assert f1.p_adjusted == pytest.approx(2 * f1.change.p)
    assert (loss.change.mean, loss.p_adjusted) == (0, 1)
    assert found.verdict[0] == "PASS"


def test_a_score_of_one_run_alone_is_left_out():
    found = only(run(records("pp", scores={"a": 1})), run(records("pp", scores={"b": 1})))
    assert found.scores == {}


def test_times_are_ratios():
    slow = only(run(records("pp")), run(records("pp", duration=0.5)))
    assert slow.ratios == {"generation_s": 2, "p50_s": 2, "p95_s": 2, "tokens_per_s": 0.5}
    nothing = only(run(records("pp", duration=0.0, generated_tokens=0)), run(records("pp")))
    assert set(nothing.ratios.values()) == {None}


def test_a_comparison_is_plain_json_and_its_checks_fit_the_report():
    scores = {"f1": 0.5}
    found = compare(run(records("pp", scores=scores)), run(records("mp", scores=scores)))
    data = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert (data["verdict"], data["experiments"][0]["lost"][0]["first"]) == ("NOT JUDGED", "right")
    assert found.checks[0].as_dict().keys() == schema()["$defs"]["check"]["properties"].keys()
    assert found.checks[0].value == -0.5


# Why


def info(**changes):
    return {"model_info": MODEL_INFO | changes}


def config(**changes):
    return {"config": CONFIG | changes}


def environment(**changes):
    return {"environment": ENVIRONMENT | changes}


CHANGES = {
    "weights": info(fingerprint="0" * 16),
    "adapters": info(adapters={"default.lora_alpha": 32}),
    "config": info(config={"rope_parameters.rope_theta": 100.0, "hidden_size": 576}),
    "tokenizer": info(tokenizer_hash="0"),
    "chat template": info(chat_template_hash=None),
    "template arguments": info(template={"enable_thinking": True}),
    "date": info(date="2026-11-27"),
    "generation_config": info(generation_config={"eos_token_id": 7}),
    "generation config": config(delta=[1.0]),
    "data": config(seed=1),
    "prompts": {},
    "dtype": info(dtype="bfloat16"),
    "device": info(device="cuda"),
    "attention": info(attention="eager"),
    "batch plan": config(batch_size=1),
    "package versions": environment(packages={"torch": "2.14.0", "transformers": "5.23.0"}),
    "platform": environment(platform="Windows"),
    "code": {"commit": {"id": "2" * 40, "dirty": True}},
}


def test_every_layer_has_a_test():
    assert CHANGES.keys() == LAYERS.keys()


@pytest.mark.parametrize("layer", CHANGES)
def test_what_changed_is_named(layer):
    prompts = {"prompt_hash": "new"} if layer == "prompts" else {}
    differences = why(run(records("pp")), run(records("pp", **prompts), **CHANGES[layer]))
    assert [difference.layer for difference in differences] == [layer]


@pytest.mark.parametrize(
    ("where", "first", "second", "said"),
    [
        (
            "config",
            {"rope_parameters.rope_theta": 100_000_000.0},
            {"rope_parameters.rope_theta": 100.0},
            ["config: rope_theta 100000000 -> 100"],
        ),
        (
            "config",
            {"rope_theta": 100_000_000, "hidden_act": "silu", "vocab_size": 9},
            {"rope_theta": 100, "hidden_act": "gelu", "vocab_size": 9},
            ["config: hidden_act silu -> gelu", "config: rope_theta 100000000 -> 100"],
        ),
        (
            "config",
            {"text.layers": 2, "vision.layers": 2},
            {"text.layers": 3, "vision.layers": 1},
            ["config: text.layers 2 -> 3", "config: vision.layers 2 -> 1"],
        ),
        (
            "generation_config",
            {"eos_token_id": "[1, 2]"},
            {},
            ["generation_config: eos_token_id [1, 2] -> none"],
        ),
        (
            "adapters",
            {"default.lora_alpha": 16},
            {"default.lora_alpha": 32},
            ["adapters: lora_alpha 16 -> 32"],
        ),
    ],
)
def test_values_of_the_files_are_named_with_both(where, first, second, said):
    runs = (run(records("p"), **info(**{where: values})) for values in (first, second))
    assert list(map(str, why(*runs))) == said


def test_a_key_that_only_another_version_of_transformers_knows_says_nothing():
    packages = ENVIRONMENT["packages"] | {"transformers": "6.0.0"}
    old = run(records("p"), **info(config={"a": 1}))
    new = info(config={"a": 1, "b": 2}) | environment(packages=packages)
    assert [found.layer for found in why(old, run(records("p"), **new))] == ["package versions"]
    same = run(records("p"), **info(config={"a": 1, "b": 2}))
    assert list(map(str, why(old, same))) == ["config: b none -> 2"]


@pytest.mark.parametrize("config", [None, [], "x", 3])
def test_a_config_that_is_no_table_is_passed_over(config):
    first = run(records("p"), **info(config={"a": 1}))
    assert why(first, replace(first, **info(config=config))) == []  # a baseline may hold anything


def test_a_cause_is_named_before_its_effects():
    changed = run(
        records("pp", prompt_hash="new"),
        **info(tokenizer_hash="new", device="cuda"),
        **config(seed=1),
    )
    layers = [difference.layer for difference in why(run(records("pp")), changed)]
    assert layers == ["tokenizer", "data", "prompts", "device"]


def test_another_dtype_is_not_called_other_weights():
    rounded = info(fingerprint="0" * 16, dtype="bfloat16")
    differences = why(run(records("p")), run(records("p"), **rounded))
    assert [str(difference) for difference in differences] == ["dtype: float32 -> bfloat16"]
    moved = info(fingerprint="0" * 16, dtype="bfloat16", revision="def")
    assert why(run(records("p")), run(records("p"), **moved))[0].layer == "weights"


def test_the_same_weights_from_another_place_are_no_difference():
    assert why(run(records("p")), run(records("p"), **info(source="/copy", revision=None))) == []


def test_a_run_that_loaded_no_model_is_compared_by_its_name():
    assert why(run(records("p")), run(records("p"), model_info={})) == []
    (difference,) = why(run(records("p")), run(records("p"), model_info={}, model="other"))
    assert str(difference) == "weights (model): org/model -> other"


def test_the_generation_config_is_compared_where_reports_have_it():
    first, second = run(records("p")), run(records("p"))
    for baseline, tokens in ((first, 20), (second, 64)):
        baseline.experiments["needle"]["generation"] = {"max_new_tokens": tokens, "top_k": 0}
    (difference,) = why(first, second)
    assert str(difference) == "generation config (needle: max_new_tokens): 20 -> 64"


def test_a_package_that_is_gone_is_a_difference():
    (difference,) = why(run(), run(**environment(packages={"torch": "2.13.0"})))
    assert str(difference) == "package versions (transformers): 5.23.0 -> none"


def test_a_difference_is_short_whatever_the_value():
    (difference,) = why(run(), run(**config(datasets={"a": "x" * 10_000})))
    assert len(str(difference)) < 150


# False alarms


def simulated(generator, template, group_size):
    """The template's cases with new outcomes; half of a case's luck may be its haystack's."""
    rates = {"easy": 0.9, "medium": 0.6, "hard": 0.3}
    shared, cases = {}, {}
    for case in template.cases.values():
        luck = generator.random()
        common = shared.setdefault((case.experiment, case.group), luck)
        if group_size > 1 and generator.random() < 0.5:
            luck = common
        outcome = "passed" if luck < rates[case.experiment] else "missed"
        cases[case.id] = replace(case, outcome=outcome)
    return replace(template, cases=cases)


@pytest.mark.parametrize("group_size", [1, 5])
def test_equal_models_fail_the_gate_no_more_often_than_one_time_in_twenty(group_size):
    generator = random.Random(1)
    groups = [f"h{n // group_size}" for n in range(40)]
    template = run(*(records("p" * 40, name, group=groups) for name in ("easy", "medium", "hard")))
    failed = sum(
        compare(*(simulated(generator, template, group_size) for _ in range(2))).verdict[0]
        == "FAIL"
        for _ in range(40)
    )
    assert failed <= 2


def several(*of):
    """A run of experiments in folders of their own: folder, name, outcomes."""
    return [
        [replace(r, id=r.id.replace("evals/", f"evals/{folder}/")) for r in records(letters, name)]
        for folder, name, letters in of
    ]


def test_families_and_the_suite_stand_in_every_output():
    names = [("haystack", f"small {n}") for n in range(4)] + [("needle", "big")]
    first = several(*((f, n, "p" * (200 if n == "big" else 4)) for f, n in names))
    second = several(*((f, n, "p" * 200 if n == "big" else "mmmp") for f, n in names))
    found = compare(run(*first), run(*second))
    assert [one.name for one in found.together] == ["(haystack)", "(suite)"]
    family, suite = found.together
    assert (family.n, family.lost, family.finding, suite.finding) == (16, 12, "worse", "worse")
    small = next(e for e in found.experiments if e.name == "small 0")
    assert small.finding == "with the suite"
    assert "judged with (haystack) (worse) and the suite (worse)" in small.reason
    assert {c.experiment for c in found.checks if c.verdict == "FAIL"} == {"(haystack)", "(suite)"}
    fine = compare(run(*first), run(*first))
    made = report(*first)
    for shown in ("\n".join(lines(fine)), html(made, fine), plain(markdown(made, fine))):
        for row in ("(haystack)", "(suite)"):
            assert row in shown
        assert shown.count("or more would have been found with 80 % probability") == 3
    assert {one["name"] for one in fine.as_dict()["families"]} == {"(haystack)"}


def plain(text):
    """Markdown with its character references read."""
    return unescape(text)
