"""Loading: names to models, failures to one sentence, identity of weights."""

import shutil
import time
from copy import deepcopy

import pytest
import torch

from pytest_llmprobe import load_model
from pytest_llmprobe.errors import LlmprobeError, ModelError
from pytest_llmprobe.models.fingerprint import fingerprint
from pytest_llmprobe.models.hub import explain
from pytest_llmprobe.models.registry import REFERENCE, ModelSpec
from pytest_llmprobe.models.text_tokenizer import tokenizer_hash
from pytest_llmprobe.models.token_counter import TokenCounter


@pytest.fixture(scope="module")
def reference():
    return load_model("reference")


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(REFERENCE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_the_reference_model_loads_in_float32(reference):
    assert reference.model.dtype == torch.float32
    assert reference.info["source"] == "embedded"
    assert reference.info["parameters"] == 5_697_600
    capabilities = reference.capabilities
    assert capabilities.context_length == 4096
    assert capabilities.chat_template
    assert capabilities.left_padding
    assert capabilities.cached_continuation
    assert capabilities.hidden_states == 7


def test_a_folder_is_the_same_model_as_its_name(reference, copy):
    loaded = load_model(str(copy))
    assert loaded.info["fingerprint"] == reference.info["fingerprint"]
    assert loaded.info["tokenizer_hash"] == reference.info["tokenizer_hash"]


def test_dtype_is_an_option(copy):
    assert load_model(str(copy), dtype="bfloat16").model.dtype == torch.bfloat16


def test_random_weights_are_reproducible_and_different(reference):
    first, second = (load_model("reference-random") for _ in range(2))
    assert first.info["fingerprint"] == second.info["fingerprint"]
    assert first.info["fingerprint"] != reference.info["fingerprint"]
    assert first.info["parameters"] == reference.info["parameters"]


def test_loading_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load_model("reference-random")
    assert torch.equal(torch.rand(3), expected)


def test_a_small_change_of_all_weights_changes_the_fingerprint(copy):
    model = load_model(str(copy)).model
    before = fingerprint(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1e-6
    assert fingerprint(model) != before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_change_of_one_single_weight_changes_the_fingerprint(copy, dtype):
    model = load_model(str(copy), dtype=dtype).model
    before = fingerprint(model)
    weight = model.model.embed_tokens.weight
    with torch.no_grad():
        weight[1234, 5] *= 2
        assert fingerprint(model) != before
        weight[1234, 5] /= 2
    assert fingerprint(model) == before


def test_what_answers_depend_on_is_in_the_models_description(reference, copy):
    info = reference.info
    assert info["config"]["rope_parameters.rope_theta"] == 1e8
    assert info["generation_config"]["eos_token_id"] == 2
    assert (info["end_ids"], info["adapters"], info["date"]) == ([2], {}, None)
    same = load_model(str(copy), dtype="bfloat16", attn_implementation="eager", context=99)
    assert same.info["config"] == info["config"]
    assert (same.capabilities.context_length, same.info["files"].keys()) == (
        99,
        {"config.json", "generation_config.json"},
    )


def test_threads_are_set(copy):
    threads = torch.get_num_threads()
    try:
        load_model(str(copy), threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


def test_a_model_type_that_does_not_exist(copy):
    (copy / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(ModelError, match=r"cannot be loaded.*no-such-type"):
        load_model(str(copy))


def test_an_option_that_does_not_exist():
    with pytest.raises(ModelError, match="unknown option"):
        load_model("reference", dtyp="float32")


def test_a_hub_model_that_is_not_here_is_said_at_once(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="hf download no-such-org/no-such-model"):
        load_model("no-such-org/no-such-model")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("GatedRepoError", "accept its licence"),
        ("RepositoryNotFoundError", "or it is private"),
        ("RevisionNotFoundError", "has no revision 'main'"),
        ("LocalEntryNotFoundError", "hf download org/name"),
    ],
)
def test_what_the_hub_says_becomes_what_to_do(kind, words):
    from huggingface_hub import errors

    error = OSError("something general")
    cause = getattr(errors, kind).__new__(getattr(errors, kind))
    error.__cause__ = cause
    assert words in explain(ModelSpec("m", "org/name", "main"), error)


def test_a_model_behind_a_server_is_not_loaded():
    with pytest.raises(ModelError, match="'openai:gpt' is behind a server and cannot be loaded"):
        load_model("openai:gpt")


def test_an_exchanged_token_that_templates_write_is_another_tokenizer():
    tokenizer = load_model("reference").tokenizer
    changed, padded = deepcopy(tokenizer), deepcopy(tokenizer)
    changed.bos_token = tokenizer.eos_token
    padded.pad_token = tokenizer.eos_token
    assert tokenizer_hash(changed) != tokenizer_hash(tokenizer)
    assert tokenizer_hash(padded) == tokenizer_hash(tokenizer)


def test_an_unknown_hub_id_without_a_network_is_one_line_in_seconds(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    for ask in (
        lambda: load_model("nobody/nothing"),
        lambda: load_model("nobody/nothing:a.gguf"),
        lambda: TokenCounter(ModelSpec("nobody/nothing", "nobody/nothing")).count("Why?"),
    ):
        with pytest.raises(LlmprobeError, match="the hub cannot be reached") as caught:
            ask()
        assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 9
