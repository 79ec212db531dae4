"""The evaluation of length probes: its cases, and what data with and without an answer get."""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
from made_up_states import INFORMED, made_up

from pytest_llmprobe.case import check_cases
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.output_length.requests import held_out, length_requests
from pytest_llmprobe.suite import Suite

FILE = Path(__file__).parents[3] / "evals" / "output_length" / "test_length_probes.py"
EVAL = run_path(str(FILE))
MODEL = SimpleNamespace(capabilities=SimpleNamespace(hidden_states=2))


def judge(case, data):
    """The miss, or None, and the scores."""
    scores = {}
    try:
        EVAL["test_length_probe"](case, MODEL, data, Suite(), scores.__setitem__)
    except AssertionError as miss:
        return str(miss).partition("\n")[0], scores
    return None, scores


@pytest.mark.parametrize(("profile", "n"), [("smoke", 1), ("ci", 32), ("full", 88)])
def test_cases_are_the_grid_and_share_one_group(profile, n):
    cases = check_cases(EVAL["probes"](Suite(profile)), "length_probe")
    assert len(cases) == n
    assert {case.group for case in cases} == {"states"}
    requests = length_requests("different_prompts", *EVAL["GRIDS"][profile])
    assert len({request.prompt for request in requests}) == len(requests)


def test_depths_reach_from_the_embeddings_to_the_last_layer():
    assert [EVAL["layer_at"](depth, MODEL) for depth in (0, 100)] == [0, 1]
    deep = SimpleNamespace(capabilities=SimpleNamespace(hidden_states=33))
    layers = [EVAL["layer_at"](depth, deep) for depth in range(0, 101, 10)]
    assert layers == sorted(set(layers))
    assert layers[::10] == [0, 32]


@pytest.mark.parametrize("depth", [0, 100])
@pytest.mark.parametrize("held_out", ["sample", "word"])
def test_a_layer_that_holds_the_length_passes_and_another_misses(depth, held_out):
    cases = EVAL["probes"](Suite("ci"))
    case = next(c for c in cases if c.id == f"states/depth-{depth}-{held_out}-linear")
    miss, scores = judge(case, INFORMED)
    assert {"mae", "r2", "spearman"} <= set(scores)
    assert scores["skill_low"] <= scores["skill"] <= scores["skill_high"]
    assert scores["control"] <= 0
    if depth:
        assert miss is None
        assert scores["skill_low"] > 0.8
    else:
        assert miss.startswith("not surely better than")
        assert scores["skill"] < 0


def test_where_nothing_could_be_better_a_probe_misses():
    case = next(iter(EVAL["probes"](Suite("smoke"))))
    same = made_up(lambda remaining, *_: (remaining, 0.0), tokens_per_word=(2, 2, 2))
    miss, scores = judge(case, same)
    assert miss == "step and count tells the remaining tokens exactly"
    assert "skill" not in scores


def test_a_model_whose_answers_cannot_be_used_is_skipped_with_the_reason():
    case = next(iter(EVAL["probes"](Suite())))
    with pytest.raises(pytest.skip.Exception, match=r"^no answer can be used$"):
        judge(case, CasesError("no answer can be used"))


def test_a_single_usable_answer_is_no_error():  # "split by sample: there is only one" it was
    def split(by, seed):
        held_out(requests[:1], by, seed=seed)

    requests = length_requests("different_prompts", ["lamp"], range(1, 145))
    metadata = {"samples": [{}], "parameters": {"requests": len(requests)}}
    case = next(iter(EVAL["probes"](Suite("smoke"))))
    with pytest.raises(pytest.skip.Exception, match=r"^1 of 144 answers can be used: "):
        judge(case, SimpleNamespace(split=split, metadata=metadata))


@pytest.mark.parametrize(("usable", "asked"), [(24, [24, 264]), (6, [24, 264]), (5, [24])])
def test_a_model_that_fails_at_the_shortest_answers_is_not_asked_for_longer_ones(usable, asked):
    calls = []

    def length_data(requests, layers, keep):
        calls.append([request.count for request in requests])
        return SimpleNamespace(metadata={"samples": [{}] * min(usable, len(requests))})

    data = EVAL["data"].__wrapped__(MODEL, length_data, Suite("smoke"))
    assert [len(call) for call in calls] == asked
    assert set(calls[0]) == {2}
    if asked == [24]:
        assert str(data) == "5 of 24 answers repeat their word"
    else:
        assert not isinstance(data, CasesError)


def test_a_model_that_repeats_no_word_is_asked_for_lists():
    calls = []

    def length_data(requests, layers, keep):
        calls.append((len(requests), keep, {request.is_list for request in requests}))
        if not requests[0].is_list:
            raise CasesError("no answer can be used (24 wrong words)")
        return SimpleNamespace(metadata={"samples": [{"is_list": True}] * len(requests)})

    data = EVAL["data"].__wrapped__(MODEL, length_data, Suite("ci"))
    assert calls == [(24, "words", {False}), (144, "ended", {True})]
    assert len(data.metadata["samples"]) == 144


def test_the_summary_has_a_curve_over_depth_for_each_probe_and_split():
    def record(depth, probe, **scores):
        params = {"depth": depth, "probe": probe, "held_out": "word"}
        return SimpleNamespace(params=params, scores=scores)

    whole = {"skill": 0.5, "skill_low": 0.4, "skill_high": 0.6, "control": -0.1, "mae": 3.0}
    records = [
        record(50, "mlp", **whole),
        record(0, "mlp", skill=-0.2, control=-0.3),
        record(0, "linear", **whole),
        record(100, "linear", mae=0.0),  # nothing to be better than
    ]
    sure = {"mean": 0.5, "ci95": [0.4, 0.6], "control": -0.1}
    assert EVAL["summarise"](records) == {
        "skill_by_depth_mlp_held_out_word": [
            {"value": 0, "mean": -0.2, "ci95": None, "control": -0.3},
            {"value": 50, **sure},
        ],
        "skill_by_depth_linear_held_out_word": [{"value": 0, **sure}],
    }
