"""The configuration file: what each table and field may be, and whose bars they are."""

import math

import pytest

from pytest_llmprobe.errors import ModelError, SettingsError
from pytest_llmprobe.models.registry import registered, resolve
from pytest_llmprobe.models.settings import read_gates, read_settings
from pytest_llmprobe.models.spec_fields import DTYPES, QUANTIZATIONS, SWITCHES
from pytest_llmprobe.plugin import model_command_line
from pytest_llmprobe.report.model_names import canonical_name
from pytest_llmprobe.report.plan import Bar


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", 3),
        ("source", ""),
        ("dtype", 5),
        ("dtype", "float99"),
        ("dtype", ["float32"]),
        ("quantization", "3bit"),
        ("device", 0),
        ("device_map", {}),
        ("trust_remote_code", "yes"),
        ("completions", 1),
        ("input_price", -1),
        ("output_price", math.nan),
        ("input_price", True),
        ("input_price", "free"),
        ("thinking", True),
        ("template", ["a"]),
        ("thought", True),
        ("thought", "<think>"),
        ("revision", 7),
        ("context", "many"),
        ("context", -5),
        ("context", True),
    ],
)
def test_a_field_that_cannot_be_is_named_with_what_it_must_be(field, value):
    entry = {"source": "org/name"} | {field: value}
    with pytest.raises(ModelError) as caught:
        registered({"mine": entry})
    message = str(caught.value)
    assert message.startswith(f"[tool.llmprobe.models.mine]: {field} = {value!r} is not ")
    assert "\n" not in message


def test_what_can_be_is_kept():
    entry = {
        "source": "org/name",
        "dtype": "bfloat16",
        "input_price": 0,
        "output_price": 2.5,
        "thought": ["<a>", "</a>"],
        "template": {"x": 1},
        "thinking": "auto",
        "context": 4096,
    }
    spec = registered({"mine": entry})["mine"]
    assert {name: getattr(spec, name) for name in entry} == entry


def test_the_command_line_knows_the_same_words():
    assert (DTYPES, QUANTIZATIONS) == (model_command_line.DTYPES, model_command_line.QUANTIZATIONS)
    assert SWITCHES == ("on", "off", "auto")


@pytest.mark.parametrize(
    "text",
    [
        "gates = 1",
        "models = 3",
        "[[gates]]",
        "[[models]]",
        "[[tool.llmprobe]]",
        "[tool]\nllmprobe = 'x'",
        "[gates]\n[gates.x",
        "[other]",
        "tool = 3",
    ],
)
def test_a_file_that_is_none_is_refused_with_its_path(tmp_path, text):
    path = tmp_path / "llmprobe.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_settings(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    "bar",
    [
        *(True, 0.5, "a text", [0.5], {}, {"of_model": True}, {"pass_rate": "0.5"}),
        *({"pass_rate": bad} for bad in (-0.1, 1.1, math.nan, math.inf, True)),
    ],
)
def test_a_bar_of_any_model_is_checked(tmp_path, bar):
    with pytest.raises(SettingsError, match=r"^\[tool.llmprobe.gates.mistral\] needle: "):
        read_gates({"gates": {"mistral": {"needle": bar}}}, "reference", tmp_path)


@pytest.mark.parametrize("table", [3, [], "x", [{}]])
def test_a_models_bars_are_a_table(tmp_path, table):
    with pytest.raises(SettingsError, match=r"^\[tool.llmprobe.gates.reference\] is "):
        read_gates({"gates": {"reference": table}}, "reference", tmp_path)


def test_a_bar_of_the_configuration_says_so(tmp_path):
    gates = {"reference": {"a": {"pass_rate": 0.5}, "b": False}}
    found = read_gates({"gates": gates}, "reference", tmp_path)
    assert found == {"reference": {"a": Bar(pass_rate=0.5, of_model=True), "b": False}}


@pytest.mark.parametrize("name", ["refrence", "mistrl", "smolm2"])
def test_a_misspelt_model_is_named_with_the_close_ones(tmp_path, name):
    with pytest.raises(SettingsError, match=rf"gates.{name}\]: unknown model .* did you mean "):
        read_gates({"gates": {name: {}}}, "reference", tmp_path)


@pytest.mark.parametrize("name", ["org/name", "openai:x", "./gone", "/gone/too", "~/gone", "mine"])
def test_a_model_that_may_be_elsewhere_is_none_of_our_business(tmp_path, name):
    models = {"mine": {"source": "org/name"}}
    assert name in read_gates({"gates": {name: {}}, "models": models}, "reference", tmp_path)


def test_one_name_for_every_spelling_of_a_folder(tmp_path, monkeypatch):
    (tmp_path / "ckpt" / "step-1").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "ckpt")
    monkeypatch.chdir(tmp_path)
    whole = tmp_path / "ckpt" / "step-1"
    spellings = ("ckpt/step-1", "./ckpt/step-1/", str(whole), f"{whole}//", "ckpt/../ckpt/step-1")
    names = {canonical_name(name, (), tmp_path) for name in (*spellings, "link/step-1")}
    assert names == {"ckpt/step-1"}
    monkeypatch.chdir(tmp_path / "ckpt")
    assert canonical_name("step-1", (), tmp_path) == "ckpt/step-1"
    assert canonical_name(str(whole), (), tmp_path / "elsewhere") == str(whole)


def test_a_link_to_the_latest_step_is_a_model_of_its_own(tmp_path):
    (tmp_path / "step-1").mkdir()
    (tmp_path / "latest").symlink_to(tmp_path / "step-1")
    assert canonical_name(str(tmp_path / "latest"), (), tmp_path) == "latest"


def test_a_folder_does_not_take_a_registered_name(tmp_path, monkeypatch):
    (tmp_path / "reference").mkdir()
    monkeypatch.chdir(tmp_path)
    known = registered()
    assert canonical_name("reference", known, tmp_path) == "reference"
    assert canonical_name("./reference", known, tmp_path) == "./reference"
    assert resolve("reference").embedded
    assert not resolve("./reference").embedded


@pytest.mark.parametrize("name", ["org/name@main", "openai:x", "x" * 5000, "a\0b", "~nobody-here"])
def test_what_is_no_folder_keeps_its_name(tmp_path, name):
    assert canonical_name(name, (), tmp_path) == name
