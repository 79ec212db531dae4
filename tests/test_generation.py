"""Generation configs: what is refused, and that equal ones are one batch key."""

import math

import pytest

from pytest_llmprobe.case import Case
from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.generation import GenerateConfig, Request

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
