"""How long a context is where rotary embeddings are stretched, as vLLM derives it."""

import json

import pytest

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.context_length import context_length
from pytest_llmprobe.models.registry import ModelSpec, with_options
from pytest_llmprobe.models.token_counter import TokenCounter

YARN = {"rope_type": "yarn", "factor": 4.0}
ROPES = {
    "yarn": (64, YARN | {"original_max_position_embeddings": 64}, 256),
    "yarn within a stretched length": (256, YARN | {"original_max_position_embeddings": 64}, 256),
    "yarn that names no length": (64, YARN, 256),
    "linear": (64, {"rope_type": "linear", "factor": 4.0}, 256),
    "dynamic": (64, {"rope_type": "dynamic", "factor": 4}, 256),
    "as older configs say it": (64, {"type": "linear", "factor": 4.0}, 256),
    "none": (64, {"rope_type": "default", "rope_theta": 1e4}, 64),
    "llama 3": (131_072, {"rope_type": "llama3", "factor": 8.0}, 131_072),
    "longrope": (131_072, {"rope_type": "longrope", "factor": 32.0}, 131_072),
    "without a factor": (64, {"type": "mrope", "mrope_section": [1, 2]}, 64),
    "by kind of layer": (64, {"full": {"rope_type": "linear", "factor": 4.0}, "near": {}}, 256),
    "damaged": (64, [4.0], 64),
}


@pytest.mark.parametrize("name", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize(("length", "rope", "right"), ROPES.values(), ids=ROPES)
def test_a_stretched_context_is_as_long_as_it_is(name, length, rope, right):
    config = {"max_position_embeddings": length, name: rope}
    assert context_length(config) == right
    assert context_length({"max_position_embeddings": 9, "text_config": config}) == right


def test_gemma_3_names_its_length_with_the_factor_in_it():
    rope = {"full_attention": {"rope_type": "linear", "factor": 8.0}}
    config = {"model_type": "gemma3_text", "max_position_embeddings": 131_072}
    assert context_length(config | {"rope_parameters": rope}) == 131_072


def test_the_users_length_wins(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 64}))
    spec = ModelSpec("here", str(tmp_path))
    assert TokenCounter(spec).context_length == 64
    assert TokenCounter(with_options(spec, context=50)).context_length == 50
    for wrong in (0, -1, True, "64", 2.0):
        with pytest.raises(ModelError, match="is no whole number from 1 up"):
            with_options(spec, context=wrong)
