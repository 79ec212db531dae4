"""Spaces: every preset can be run, and what cannot be meant is refused by name before anything."""

import numpy as np
import pytest
from sklearn.model_selection import ParameterGrid
from transformers import GenerationConfig

from pytest_llmprobe import GenerateConfig
from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.search import PRESETS
from pytest_llmprobe.search.space import NAMES, configuration, configurations

BASE = GenerateConfig(max_new_tokens=9, stop="\n")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_grid_as_scikit_learn_takes_it(name):
    found = configurations(name, BASE)
    expected = [configuration(point, BASE).key for point in ParameterGrid(list(PRESETS[name]))]
    assert sorted(map(repr, expected)) == sorted(repr(one.key) for one in found)
    assert len(found) > 1
    assert {one.config.stop for one in found} == {("\n",)}


def test_there_is_a_preset_for_each_way_of_decoding():
    used = {name for grids in PRESETS.values() for grid in grids for name in grid}
    room = {"max_new_tokens", "stop", "thinking_tokens"}
    assert used == set(NAMES) - room - {"generation_seed"}
    assert len(configurations("small", BASE)) <= 12


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"temprature": 1.0}, "unknown parameter 'temprature'; known: max_new_tokens"),
        ({"temperature": 0, "top_p": 0.9}, "top_p=0.9 samples, but temperature=0 is greedy"),
        ({"top_k": 5}, "top_k=5 samples"),
        ({"tfs": 0.5}, "tfs=0.5 samples"),
        ({"temperature": -1.0}, "temperature=-1.0: it must be"),
        ({"top_p": 1.5, "temperature": 1.0}, "top_p=1.5: it must be"),
        ({"do_sample": False}, "do_sample is said by temperature"),
        ({"penalty_alpha": 0.6}, r"penalty_alpha=0\.6 with top_k=0"),
        ({"low_memory": True}, "low_memory .contrastive search. is a mode that transformers"),
        ({"dola_layers": "low"}, "dola_layers .DoLa. is a mode that transformers no longer has"),
        ({"num_beam_groups": 2}, "num_beam_groups"),
        ({"num_beams": 4, "temperature": 1.0}, r"num_beams=4 with temperature=1\.0"),
        ({"num_return_sequences": 4}, "num_return_sequences would give several answers"),
        ({"eta_cutoff": 0.1}, r"eta_cutoff=0\.1 samples"),
        ({"generation_seed": -1}, "generation_seed=-1"),
        ({"generation_seed": 0.5}, "generation_seed=0.5"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(parameters, words):
    with pytest.raises(SettingsError, match=words):
        configuration(parameters, BASE)


def test_the_modes_that_are_said_to_be_gone_are_refused_by_transformers_itself():
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=9, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1
    )
    model = AutoModelForCausalLM.from_config(config)
    inputs = model.dummy_inputs["input_ids"][:1, :3] % 9
    for gone in (
        {"penalty_alpha": 0.6, "top_k": 4},
        {"dola_layers": "low"},
        {"num_beams": 2, "num_beam_groups": 2, "diversity_penalty": 1.0},
        {"num_beams": 2, "force_words_ids": [[3]]},
    ):
        settings = GenerationConfig(max_new_tokens=2, pad_token_id=0, **gone)
        with pytest.raises(ValueError, match="requires `trust_remote_code=True`"):
            model.generate(inputs, generation_config=settings)


def test_a_space_is_refused_that_has_nothing_or_no_name():
    with pytest.raises(SettingsError, match="no preset space 'smal'; there are: small"):
        configurations("smal", BASE)
    with pytest.raises(SettingsError, match="no configuration"):
        configurations({"temperature": []}, BASE)
    with pytest.raises(SettingsError, match="is no grid"):
        configurations([0.7], BASE)
    with pytest.raises(SettingsError, match="more than"):
        configurations({"temperature": np.linspace(0.1, 1, 10_002)}, BASE)


def test_grids_lists_of_parameters_and_numpy_numbers_are_the_same():
    grid = configurations({"temperature": [0.5, 1.0], "top_k": np.array([5, 6])}, BASE)
    points = [{"temperature": t, "top_k": np.int64(k)} for t in (0.5, 1.0) for k in (5, 6)]
    assert configurations(points, BASE) == grid
    assert [type(value) for _, value in grid[0].parameters] == [float, int]
    assert grid[0].label == "temperature=0.5 top_k=5"


def test_presets_and_grids_add_up():
    both = configurations(["temperature", {"top_k": [3], "temperature": 1.0}], BASE)
    assert both[:-1] == configurations("temperature", BASE)
    assert both[-1].label == "top_k=3 temperature=1"


def test_configurations_that_generate_alike_are_tried_once():
    space = [{"temperature": [0, 0.0]}, {}, {"generation_seed": [0, 1]}, {"repetition_penalty": 1}]
    assert len(configurations(space, BASE)) == 1
    sampled = configurations({"temperature": 0.5, "generation_seed": [0, 1, 2]}, BASE)
    assert [one.seed for one in sampled] == [0, 1, 2]
    assert configurations({"stop": [("a", "b"), "c"]}, BASE)[0].config.stop == ("a", "b")
