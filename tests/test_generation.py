"""Generation configs: what is refused, and that equal ones are one batch key."""

import math

import pytest

from pytest_llmprobe.case import Case, Span
from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.generation import GenerateConfig, Request, Steer, delta_grid

OUT_OF_RANGE = [
    ("max_new_tokens", 0),
    ("max_new_tokens", -1),
    ("max_new_tokens", 1.5),
    ("max_new_tokens", "64"),
    ("max_new_tokens", None),
    ("temperature", -0.1),
    ("temperature", math.inf),
    ("temperature", math.nan),
    ("top_k", -1),
    ("top_k", 2.5),
    ("top_k", "50"),
    ("top_p", 0),
    ("top_p", 1.1),
    ("top_p", math.nan),
    ("min_p", -0.1),
    ("min_p", 1),
    ("stop", ""),
    ("stop", ("a", "")),
    ("stop", ("a", 5)),
]


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_and_the_error_names_it(name, value):
    with pytest.raises(SettingsError, match=f"^{name}="):
        GenerateConfig.of(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", "hot"), ("top_p", None), ("stop", 5), ("min_p", [])]
)
def test_a_value_of_the_wrong_type_is_a_settings_error_too(name, value):
    with pytest.raises(SettingsError, match=name):
        GenerateConfig.of(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 1),
        ("temperature", 0),
        ("temperature", 2.0),
        ("top_k", 0),
        ("top_k", 50),
        ("top_p", 1),
        ("top_p", 0.01),
        ("min_p", 0),
        ("min_p", 0.99),
        ("stop", ("\n", "###")),
    ],
)
def test_a_value_at_the_edge_of_its_range_is_kept(name, value):
    assert getattr(GenerateConfig.of(**{name: value}), name) == value


def test_an_unknown_option_is_refused_with_the_known_ones():
    with pytest.raises(SettingsError, match=r"'max_tokens'.*max_new_tokens, stop, temperature"):
        GenerateConfig.of(max_tokens=5)


def test_one_stop_string_is_not_taken_apart_into_characters():
    assert GenerateConfig(stop="END").stop == ("END",)


def test_equal_configs_are_one_key_however_their_stops_were_given():
    configs = [GenerateConfig(stop=["a", "b"]), GenerateConfig(stop=("a", "b"))]
    assert len(set(configs)) == 1
    assert len({*configs, GenerateConfig(stop=("b", "a"))}) == 2


def test_a_request_takes_prompt_seed_and_target_of_its_case():
    config = GenerateConfig(max_new_tokens=3)
    request = Request.of_case(Case("haystack/depth-0", "prompt", target="42", seed=7), config)
    assert request == Request("prompt", config, seed=7, draft="42")


def test_a_list_of_targets_is_no_draft():
    request = Request.of_case(Case("a", "prompt", target=("1", "2")), GenerateConfig())
    assert request.draft is None


def test_a_case_is_asked_unsteered_unless_told_how():
    case, config = Case("a", "do it now", spans="now"), GenerateConfig()
    assert Request.of_case(case, config).steer is None
    steer = Steer(case.spans, 2)
    assert Request.of_case(case, config, steer).steer is steer


@pytest.mark.parametrize(
    ("given", "grid"),
    [((0, 1.0, -2.5), (0, 1, -2.5)), (2, (2,)), ((), ()), (range(3), (0, 1, 2)), ([-0.0], (0,))],
)
def test_a_grid_of_deltas_keeps_its_order_and_shows_whole_numbers_so(given, grid):
    assert delta_grid(given) == grid
    assert [str(value) for value in delta_grid(given)] == [str(value) for value in grid]


@pytest.mark.parametrize(
    "given", ["1", None, ["1"], [True], 101, [-100.5], [math.nan], math.inf, [1, 1.0], [2, 0, 2]]
)
def test_what_is_no_grid_of_deltas_is_refused(given):
    with pytest.raises(SettingsError, match="delta="):
        delta_grid(given)


def test_spans_and_layers_of_a_steer_are_given_in_several_ways_and_kept_in_one():
    steer = Steer("now", 2.0, [3, 0, 3])
    assert steer == Steer([Span("now")], 2, (0, 3))
    assert hash(steer) == hash(Steer(("now",), 2, (0, 3)))
    assert Steer("now", 1, 2).layers == (2,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"delta": math.nan}, "delta=nan"),
        ({"delta": "1"}, "delta='1'"),
        ({"delta": 101}, "between -100 and 100"),
        ({"layers": "middle"}, "layers='middle'"),
        ({"layers": ()}, "layers="),
        ({"layers": [-1]}, "layers="),
        ({"layers": [1.5]}, "layers="),
        ({"layers": None}, "layers=None"),
        ({"phase": "decode"}, "phase='decode'"),
    ],
)
def test_a_steer_that_is_out_of_range_is_refused(changes, words):
    with pytest.raises(SettingsError, match=words):
        Steer(**{"spans": "now", "delta": 1} | changes)


@pytest.mark.parametrize("spans", [(), "", [5]])
def test_a_steer_needs_spans(spans):
    with pytest.raises(CasesError, match="span"):
        Steer(spans, 1)
