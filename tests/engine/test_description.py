"""What is said of a model before it is loaded is what is measured when it is."""

import json
import shutil

import pytest
from architectures import ARCHITECTURES, PACKED
from transformers import AutoConfig, BertConfig, T5Config

from pytest_llmprobe import load_model
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models import kept_facts
from pytest_llmprobe.models.description import describe, expects_packed, in_bytes
from pytest_llmprobe.models.registry import REFERENCE, resolve, with_options

QWEN = "{% if enable_thinking is false %}<think></think>{% endif %}{{ messages[0].content }}"


@pytest.fixture
def folder(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(REFERENCE, copy, ignore=shutil.ignore_patterns("__pycache__", "unlearned"))
    return copy


def said(name, **options):
    return dict(describe(with_options(resolve(str(name)), **options)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_expected_path_is_the_one_that_is_measured(architecture):
    config = AutoConfig.for_model(architecture, **ARCHITECTURES[architecture]).to_dict()
    assert expects_packed(config) == (architecture in PACKED)


def test_once_loaded_the_path_is_known(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMPROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_facts, "LEAST", 0)
    assert "expected" in said(folder)["path"]
    backend = FastBackend(load_model(str(folder)))
    path = said(folder)["path"]
    assert path.endswith(" (measured)")
    assert backend.path.startswith(path.removesuffix(" (measured)"))


def test_switches_marks_and_settings_are_named(folder):
    (folder / "chat_template.jinja").write_text(QWEN)
    facts = said(folder, context=99, dtype="bfloat16")
    assert facts["template"] == "yes; arguments: enable_thinking"
    assert facts["thoughts"].startswith("<think> to </think>, switched with enable_thinking")
    assert facts["context"] == "99 tokens, as asked for"
    assert facts["memory"].startswith("11 MB of weights (bfloat16), up to 7.7 MB of keys")


def test_an_encoder_is_told(folder):
    T5Config(vocab_size=9, num_layers=1, d_model=8).save_pretrained(folder)
    assert said(folder)["path"].startswith("generate, padded batches: an encoder reads the prompt")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda folder: BertConfig(vocab_size=9).save_pretrained(folder),
            "reads in both directions",
        ),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "vit"}'), "knows vit"),
        (lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "is damaged: 1 bytes"),
        (lambda folder: (folder / "chat_template.jinja").write_text("x" * 200_000), "131,072"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), r"tokenizer\.json cannot be"),
    ],
)
def test_what_would_not_load_is_said(folder, damage, words):
    damage(folder)
    with pytest.raises(ModelError, match=words):
        said(folder)


def test_a_served_model_is_where_its_server_is():
    facts = said("openai:x", base_url="http://127.0.0.1:9/v1")
    assert facts["source"] == "openai:x, behind http://127.0.0.1:9/v1"


def test_sizes():
    assert [in_bytes(n) for n in (500, 11e6, 1.234e9, 5e12)] == [
        "0.5 kB",
        "11 MB",
        "1.2 GB",
        "5,000 GB",
    ]


def test_a_config_keeps_what_it_says(folder):
    config = json.loads((folder / "config.json").read_text())
    assert said(folder)["context"] == f"{config['max_position_embeddings']:,} tokens"
