"""Tokens counted from a model's files are those that the engine feeds to it."""

import json
import shutil
import subprocess
import sys

import pytest
from some_tokenizers import REFERENCE, made
from tokenizers import Tokenizer, processors
from transformers import AutoConfig, AutoTokenizer

from pytest_llmprobe.case import RawPrompt
from pytest_llmprobe.errors import CasesError, RequestError
from pytest_llmprobe.models.prompts import PromptEncoder
from pytest_llmprobe.models.registry import REGISTRY, ModelSpec
from pytest_llmprobe.models.token_counter import TokenCounter


@pytest.mark.parametrize(
    "kind",
    ["gpt2", "llama", "bloom", "mpt", "mamba", "gemma3", "opt", "gptj", "qwen3", "falcon", "jamba"],
)
def test_layers_are_counted_as_transformers_does(kind, tmp_path):
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path).get_text_config(decoder=True)
    counted = TokenCounter(ModelSpec("m", str(tmp_path))).layer_count
    assert counted == config.num_hidden_layers > 0


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "  Where is Rome?\n"},
    {"role": "assistant", "content": "In Italy."},
    {"role": "user", "content": "And 東京?"},
]
TEMPLATES = {
    "plain": "{{ bos_token }}{% for m in messages %}<|user|>{{ m.content }}{% endfor %}",
    "whitespace": (
        "{%- for m in messages %}\n    {%- if m.role == 'system' %}\n  {{- m.content | trim }}\n"
        "    {%- else %}\n{{ m.role + ': ' + m.content }}\n    {%- endif %}\n{%- endfor %}\n"
        "{%- if add_generation_prompt %}\nassistant:{% endif %}"
    ),
    "namespaces and loop controls": (
        "{% set ns = namespace(seen=false) %}{% for m in messages[::-1] %}{% if ns.seen %}"
        "{% continue %}{% endif %}{% set ns.seen = true %}{{ m.content }}{% endfor %}"
        "{{ eos_token }}"
    ),
    "generation": (
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    ),
    "json": "{{ messages | tojson }}{{ tools is none }}{{ unk_token }}",
    "json with options": "{{ messages | tojson(indent=2, sort_keys=true) }}",
    "date": "{{ strftime_now('%Y') }}{{ messages[-1].content }}",
}


@pytest.fixture
def model(tmp_path):
    """Write a model's folder; give what counts and what the engine would encode."""

    def model(tokenizer=None, template=None, jinja=None):
        tokenizer = tokenizer or made("byte level")
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        settings = {"tokenizer_class": "TokenizersBackend", "bos_token": "<|user|>"} | {
            "eos_token": {"content": "[SEP]", "__type": "AddedToken"},
            "unk_token": "<unk>",
        }
        if template is not None:
            settings["chat_template"] = template
        if jinja is not None:
            (tmp_path / "chat_template.jinja").write_text(jinja)
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        (tmp_path / "config.json").write_text('{"model_type": "llama"}')
        loaded = AutoTokenizer.from_pretrained(tmp_path)
        encoder = PromptEncoder(loaded, bool(loaded.chat_template))
        return TokenCounter(ModelSpec("here", str(tmp_path))), encoder

    return model


def long_text(n=30_000):
    return "The magic number of Velmora is 482913. " * (n // 39)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_chat_template_is_rendered_as_transformers_does(model, template):
    counter, engine = model(template=template)
    for prompt in ("Where is Rome?", CHAT, CHAT[1:2], " \n", long_text()):
        assert counter.ids(prompt) == engine.ids(prompt)


def test_the_template_of_a_file_of_its_own_and_the_default_one_of_several(model):
    several = [
        {"name": "default", "template": TEMPLATES["plain"]},
        {"name": "tool_use", "template": "tools"},
    ]
    counter, engine = model(template=several)
    assert counter.ids(CHAT) == engine.ids(CHAT)
    counter, engine = model(template="not this one", jinja=TEMPLATES["json"])
    assert counter.ids(CHAT) == engine.ids(CHAT)


def test_without_a_chat_template_the_tokenizer_puts_its_special_tokens(model):
    tokenizer = Tokenizer.from_str(made("byte level").to_str())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|user|> $A", special_tokens=[("<|user|>", 1)]
    )
    counter, engine = model(tokenizer)
    for prompt in ("Where is Rome?", long_text()):
        ids = counter.ids(prompt)
        assert ids == engine.ids(prompt)
        assert ids[0] == 1
        assert counter.count(prompt) == len(ids)
    with pytest.raises(CasesError, match="no chat template"):
        counter.count(CHAT)


def test_a_template_that_refuses_says_why(model):
    counter, _ = model(template="{{ raise_exception('no system message, please') }}")
    with pytest.raises(CasesError, match="no system message, please"):
        counter.count(CHAT)
    counter, _ = model(template="{% set ns = namespace() %}{% set ns.__class__ = 1 %}")
    with pytest.raises(CasesError, match="may not keep"):
        counter.count(CHAT)
    counter, _ = model(template="{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(CasesError, match="unsafe"):
        counter.count(CHAT)


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 131_072}}, 131_072),
        ({"text_config": {"max_position_embeddings": 9}, "max_position_embeddings": 7}, 9),
        ({"text_config": None, "max_position_embeddings": 7}, 7),
        ({"max_position_embeddings": None}, None),
        ({}, None),
    ],
)
def test_the_context_length_is_read_from_the_config(config, length, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert TokenCounter(ModelSpec("here", str(tmp_path))).context_length == length


def test_the_reference_model_is_counted_as_it_is_loaded():
    counter = TokenCounter(REGISTRY["reference"])
    config = json.loads((REFERENCE / "config.json").read_text())
    assert counter.context_length == config["max_position_embeddings"]
    engine = PromptEncoder(AutoTokenizer.from_pretrained(REFERENCE), chat_template=True)
    raw = (RawPrompt("Where is Rome?"), RawPrompt("Rom", (1, 80, 77)))
    for prompt in ("Where is Rome?", CHAT[1:], long_text(), *raw):
        assert counter.ids(prompt) == engine.ids(prompt)
        assert counter.count(prompt) == len(engine.ids(prompt))


def test_a_raw_prompt_has_no_chat_template_and_its_own_ids_come_first():
    tokenizer = AutoTokenizer.from_pretrained(REFERENCE)
    encoder = PromptEncoder(tokenizer, chat_template=True)
    assert encoder.ids(RawPrompt("Rome is")) == tokenizer("Rome is").input_ids
    assert encoder.ids(RawPrompt("Rome is", (1, 80))) == [1, 80]
    with pytest.raises(RequestError, match="token 99999 is none of this tokenizer's 2048"):
        encoder.ids(RawPrompt("Rome is", (1, 99999)))


def test_counting_imports_neither_torch_nor_transformers():
    code = """
import json, sys
from pytest_llmprobe.models.registry import REGISTRY
from pytest_llmprobe.models.token_counter import TokenCounter
counter = TokenCounter(REGISTRY["reference"])
assert "tokenizers" not in sys.modules
counter.count("a b " * 10_000), counter.context_length
print(sorted({"torch", "transformers", "accelerate", "huggingface_hub"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_tokenizer_json_transformers_is_asked(tmp_path):
    words = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "where", "is", "rome", "?"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    counter = TokenCounter(ModelSpec("here", str(tmp_path)))
    assert counter.ids("Where is Rome?") == [1, 5, 6, 7, 8, 2]
    assert counter.ids(RawPrompt("where")) == [1, 5, 2]
    assert counter.decode([1, 5, 6, 2]) == "where is"
    with pytest.raises(CasesError, match="no chat template"):
        counter.count(CHAT)


def test_files_that_are_absent_or_damaged(tmp_path):
    counter = TokenCounter(ModelSpec("here", str(tmp_path)))
    with pytest.raises(CasesError, match=r"has no config\.json"):
        _ = counter.context_length
    with pytest.raises(CasesError, match="tokenizer of 'here' cannot be loaded"):
        counter.count("a")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CasesError, match=r"config\.json cannot be read"):
        _ = counter.context_length
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CasesError, match=r"tokenizer\.json cannot be read"):
        counter.count("a")


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """An offline hub whose cache holds the reference model as org/name."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(REFERENCE / name, snapshot / name)
    return snapshot


def test_a_hub_model_is_counted_from_its_cached_files(cached):
    counter, here = TokenCounter(ModelSpec("x", "org/name")), TokenCounter(REGISTRY["reference"])
    assert counter.count("Where is Rome?") == here.count("Where is Rome?")
    assert counter.context_length == here.context_length


def test_a_hub_model_that_is_not_here_is_one_clear_error(cached):
    counter = TokenCounter(ModelSpec("x", "org/other"))
    for count in (lambda: counter.count("a"), lambda: counter.context_length):
        with pytest.raises(CasesError, match=r"tokens of org/other cannot be counted.*hf download"):
            count()
