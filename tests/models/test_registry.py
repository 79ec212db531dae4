"""Names of models and the damage that shows before anything is loaded."""

import json
import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.folder_check import check_folder
from pytest_llmprobe.models.registry import (
    REGISTRY,
    ModelSpec,
    registered,
    resolve,
    with_options,
)

TENSORS = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
    "b": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]},
}


def safetensors(header=None, data=24):
    """A file of this format: header length, header, data."""
    text = header if isinstance(header, bytes) else json.dumps(header or TENSORS).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


WHOLE = safetensors()


@pytest.fixture
def folder(tmp_path):
    """A whole model folder, as far as that shows without loading."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(WHOLE)
    return tmp_path


# Names


def test_a_registry_name_means_its_hub_id():
    assert resolve("mistral") == ModelSpec("mistral", "mistralai/Mistral-7B-Instruct-v0.3")


@pytest.mark.parametrize("name", ["reference", "reference-random"])
def test_the_reference_models_ship_with_the_package_and_are_whole(name):
    spec = resolve(name)
    assert spec.embedded
    assert spec.random_weights == (name == "reference-random")
    check_folder(spec.folder)


def test_every_registered_name_is_a_folder_a_hub_id_a_package_or_behind_a_server():
    for name, spec in REGISTRY.items():
        assert spec.name == name
        hub_id = spec.source.count("/") == 1
        assert spec.embedded or spec.protocol or spec.package or hub_id
        assert not spec.trust_remote_code


def test_a_folder_is_a_model(folder, monkeypatch):
    assert resolve(str(folder)).folder == folder
    monkeypatch.chdir(folder.parent)
    assert resolve(f"./{folder.name}").folder.samefile(folder)
    assert resolve(folder.name).folder.samefile(folder)


def test_a_folder_in_the_home_directory_is_found(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert resolve(f"~/{folder.name}").folder == folder


def test_a_registry_name_wins_over_a_folder_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "mistral").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("mistral").source == "mistralai/Mistral-7B-Instruct-v0.3"


@pytest.mark.parametrize(
    ("name", "source", "revision"),
    [
        ("org/name", "org/name", None),
        ("Org-1/name_2.5-GGUF", "Org-1/name_2.5-GGUF", None),
        ("org/name@main", "org/name", "main"),
        ("org/name@refs/pr/5", "org/name", "refs/pr/5"),
        ("org/name@0123abc", "org/name", "0123abc"),
    ],
)
def test_a_hub_id_may_name_a_revision(name, source, revision):
    assert resolve(name) == ModelSpec(name, source, revision)


@pytest.mark.parametrize(
    "name",
    [
        "nonsense",
        "../x",
        "./x",
        "x/..",
        "x/.",
        "../../etc/passwd",
        "/absent/folder",
        "org/name/more",
        "org/",
        "/name",
        "org/name@",
        "@main",
        "org name/x",
        "org/na me",
        "https://example.org/x",
        "org/name\n",
        "",
        " ",
        "~nobody-of-this-name/model",
        "x" * 300,
        "mistral@main",
    ],
)
def test_what_is_no_name_no_folder_and_no_hub_id_is_unknown(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="unknown model"):
        resolve(name)


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("mistrall", "mistral"),
        ("Mistral", "mistral"),
        ("reference-randm", "reference-random"),
        ("qwen3-06b", "qwen3-0.6b"),
        ("my-modle", "my-model"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_closest_ones(name, close):
    with pytest.raises(ModelError, match=f"did you mean .*{close}"):
        resolve(name, {"my-model": {"source": "a/b"}})


def test_a_name_like_no_other_is_answered_with_all_of_them():
    with pytest.raises(ModelError) as caught:
        resolve("zzzzzzzz", {"my-model": {"source": "a/b"}})
    assert all(name in str(caught.value) for name in [*REGISTRY, "my-model"])


# A user's own models


def test_a_user_model_adds_to_the_registry_and_may_replace_a_name():
    models = {
        "tiny": {"source": "org/tiny", "revision": "v1", "dtype": "bfloat16"},
        "mistral": {"source": "me/mistral-ft"},
    }
    assert resolve("tiny", models) == ModelSpec("tiny", "org/tiny", "v1", dtype="bfloat16")
    assert resolve("mistral", models).source == "me/mistral-ft"
    assert registered(models).keys() == REGISTRY.keys() | {"tiny"}
    assert resolve("mistral").source == "mistralai/Mistral-7B-Instruct-v0.3"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "'source'.*missing"),
        ({"revision": "main"}, "'source'.*missing"),
        ({"source": "a/b", "sauce": 1}, "unknown field 'sauce'; known: .*revision, source"),
        ({"source": "a/b", "name": "x"}, "unknown field 'name'"),
        ("a/b", "tiny"),
        ({"source": 5}, "source"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_table(entry, message):
    with pytest.raises(ModelError, match=message) as caught:
        resolve("tiny", {"tiny": entry})
    assert "[tool.llmprobe.models.tiny]" in str(caught.value)


def test_options_replace_fields_and_none_leaves_them():
    spec = ModelSpec("m", "a/b", dtype="float16", device="cpu")
    assert with_options(spec, dtype="float32", device=None) == ModelSpec(
        "m", "a/b", dtype="float32", device="cpu"
    )


def test_an_unknown_option_is_refused_by_name():
    with pytest.raises(ModelError, match="dtpye"):
        with_options(ModelSpec("m", "a/b"), dtpye="float32")


def test_a_package_has_no_revision_but_what_is_installed():
    with pytest.raises(ModelError, match="revision has no meaning for 'smollm2'"):
        with_options(resolve("smollm2"), revision="main")


# Damage


def test_a_whole_folder_is_not_complained_about(folder):
    check_folder(folder)
    for shard in (1, 2):
        (folder / f"model-0000{shard}-of-00002.safetensors").write_bytes(WHOLE)
    check_folder(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "has no config.json"),
        ("tokenizer.json", "has no tokenizer"),
        ("model.safetensors", "has no weights"),
    ],
)
def test_a_missing_file_is_named(folder, name, message):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=message) as caught:
        check_folder(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["tokenizer.model", "vocab.json", "vocab.txt", "spiece.model"])
def test_any_kind_of_tokenizer_will_do(folder, name):
    (folder / "tokenizer.json").rename(folder / name)
    check_folder(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{", b'{"a": 1} more'])
def test_a_config_that_is_no_json_is_named(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config.json cannot be read"):
        check_folder(folder)


def test_weights_that_were_cut_off_anywhere_are_named(folder):
    for size in range(len(WHOLE)):
        (folder / "model.safetensors").write_bytes(WHOLE[:size])
        with pytest.raises(ModelError, match=r"model.safetensors is damaged"):
            check_folder(folder)


def test_weights_that_were_cut_off_say_both_sizes(folder):
    (folder / "model.safetensors").write_bytes(WHOLE[:-5])
    with pytest.raises(ModelError, match=f"{len(WHOLE) - 5} bytes.* says {len(WHOLE)}"):
        check_folder(folder)


def test_weights_with_something_behind_them_are_damaged(folder):
    (folder / "model.safetensors").write_bytes(WHOLE + b"x")
    with pytest.raises(ModelError, match="damaged"):
        check_folder(folder)


def test_one_damaged_shard_among_whole_ones_is_found(folder):
    (folder / "model-00002-of-00002.safetensors").write_bytes(WHOLE[:-1])
    with pytest.raises(ModelError, match=r"model-00002-of-00002.safetensors is damaged"):
        check_folder(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 5\n",
        b"<!DOCTYPE html><html>not found</html>",
        b"PK\x03\x04" + bytes(100),
        bytes(100),
        safetensors(b"no json here"),
        safetensors(b"\xff\xfe\xfd"),
        safetensors([1, 2]),
        safetensors(b"5"),
        safetensors({"a": {"dtype": "F32"}}),
        safetensors({"a": {"data_offsets": 24}}),
        safetensors({"a": {"data_offsets": [24]}}),
        safetensors({"a": {"data_offsets": ["0", "24"]}}),
        safetensors({"a": {"data_offsets": [0, None]}}),
        safetensors({"a": {"data_offsets": [0, 8]}, "b": {"data_offsets": [8, "24"]}}),
        safetensors({"a": "tensor"}),
        safetensors({"a": None}),
    ],
    ids=range(16),
)
def test_what_is_no_safetensors_file_is_damaged(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model.safetensors is damaged"):
        check_folder(folder)


headers = st.recursive(
    st.none() | st.integers(-5, 50) | st.text(max_size=3) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "data_offsets", "__metadata__"]), inner)
        | st.builds(lambda offsets: {"a": {"data_offsets": offsets}}, inner)
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=100)
@given(
    st.binary(max_size=60) | headers.map(lambda header: safetensors(json.dumps(header).encode()))
)
def test_no_content_whatever_makes_the_check_fail_in_another_way(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(content)
    with suppress(ModelError):
        check_folder(folder)


def test_an_absent_shard_of_the_index_is_named(folder):
    index = {
        "weight_map": {
            "a": "model-00001-of-00002.safetensors",
            "b": "model-00002-of-00002.safetensors",
        }
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(ModelError, match="model-00002-of-00002"):
        check_folder(folder)


def test_a_pickle_of_the_trainer_is_no_weights(folder):
    (folder / "model.safetensors").rename(folder / "training_args.bin")
    with pytest.raises(ModelError, match="has no weights"):
        check_folder(folder)
