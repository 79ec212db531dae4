"""Checkpoints of all kinds: loaded as transformers loads them, or one line says why not.

Forms that tools write (wrapped names, adapters, GGUF, quantised) are in tests/models.
"""

import json
import re

import pytest
import torch
from architectures import ARCHITECTURES, BASE
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from pytest_llmprobe import load_model
from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.registry import REFERENCE
from pytest_llmprobe.report.weights_text import weights_lines

SMALL = {"vocab_size": 2048, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
SMALL |= {"num_attention_heads": 2, "pad_token_id": 0}
T5 = {"vocab_size": 2048, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2}
BART = {"vocab_size": 2048, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1}
BART |= {f"{part}_{n}": 2 for part in ("encoder", "decoder") for n in ("attention_heads",)}
BART |= {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64}
VISION = {"image_size": 8, "patch_size": 4, **SMALL}


def saved(folder, kind, fields, auto=AutoModelForCausalLM, **options):
    config = AutoConfig.for_model(kind, **fields)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = auto.from_config(config).eval()
    model.to(options.pop("dtype", torch.float32)).save_pretrained(folder, **options)
    AutoTokenizer.from_pretrained(REFERENCE).save_pretrained(folder)
    return folder


LOADED = {
    **{kind: (kind, fields, {}) for kind, fields in ARCHITECTURES.items()},
    "in bfloat16": ("llama", BASE, {"dtype": torch.bfloat16}),
    "in shards": ("llama", BASE, {"max_shard_size": "100KB"}),
    "with a tied head": ("llama", BASE | {"tie_word_embeddings": True}, {}),
    "T5": ("t5", T5, {"auto": AutoModelForSeq2SeqLM}),
    "BART": ("bart", BART, {"auto": AutoModelForSeq2SeqLM}),
}


@pytest.mark.parametrize("what", LOADED)
def test_what_generates_is_what_transformers_loads(tmp_path, what):
    kind, fields, options = LOADED[what]
    folder = saved(tmp_path / "m", kind, fields, **options)
    ids = {"input_ids": torch.tensor([[5, 6, 7, 8]])}
    if (auto := options.get("auto", AutoModelForCausalLM)) is AutoModelForSeq2SeqLM:
        ids["decoder_input_ids"] = torch.tensor([[2, 9]])
    expected = auto.from_pretrained(folder, dtype=torch.float32).eval()
    loaded = load_model(str(folder))
    assert loaded.info["weights"] == {}
    with torch.inference_mode():
        assert torch.equal(loaded.model(**ids).logits, expected(**ids).logits)


def test_what_is_left_over_is_unused_and_said(tmp_path):
    with_tensors(k_scale=(1,), visual__weight=(2, 2))(tmp_path / "m")
    loaded = load_model(str(tmp_path / "m"))
    assert loaded.info["weights"]["unused"]["n"] == 2
    (line,) = weights_lines(loaded.info)
    assert "no place for 2 tensors" in line
    assert "up_proj.visual.weight" in line


def without_a_shard(folder):
    saved(folder, "llama", BASE, max_shard_size="100KB")
    sorted(folder.glob("*.safetensors"))[1].unlink()


def cut_off(folder):
    path = saved(folder, "llama", BASE) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def without(*files):
    def made(folder):
        saved(folder, "llama", BASE)
        for name in files:
            (folder / name).unlink()

    return made


def without_tensors(kind, fields, part, auto=AutoModelForCausalLM):
    def made(folder):
        path = saved(folder, kind, fields, auto) / "model.safetensors"
        kept = {name: tensor for name, tensor in load_file(path).items() if part not in name}
        save_file(kept, path, metadata={"format": "pt"})

    return made


def with_tensors(kind=None, **more):
    """A whole checkpoint whose first layer has other tensors beside its weights."""

    def made(folder):
        path = saved(folder, "llama", BASE) / "model.safetensors"
        tensors = load_file(path)
        name = "model.layers.0.mlp.up_proj."
        if kind is not None:
            tensors[name + "weight"] = tensors[name + "weight"].to(kind)
        tensors |= {name + key.replace("__", "."): torch.ones(size) for key, size in more.items()}
        save_file(tensors, path, metadata={"format": "pt"})

    return made


def of_another_size(folder):
    saved(folder, "llama", BASE)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 100}))


def called(kind):
    def made(folder):
        saved(folder, "llama", BASE)
        (folder / "config.json").write_text(json.dumps({"model_type": kind}))

    return made


def written(name, content):
    def made(folder):
        saved(folder, "llama", BASE)
        (folder / name).write_text(content)

    return made


def as_kind(kind, fields, auto):
    return lambda folder: saved(folder, kind, fields, auto)


HEAD = "language model"
REFUSED = {
    "BERT": (as_kind("bert", SMALL, AutoModelForMaskedLM), HEAD),
    "RoBERTa": (as_kind("roberta", SMALL, AutoModelForMaskedLM), HEAD),
    "ModernBERT": (as_kind("modernbert", SMALL, AutoModelForMaskedLM), HEAD),
    "DistilBERT": (as_kind("distilbert", {"vocab_size": 2048, "dim": 32, "n_heads": 2}
                           | {"n_layers": 1, "hidden_dim": 48}, AutoModelForMaskedLM), HEAD),
    "a classifier": (as_kind("llama", BASE, AutoModelForSequenceClassification), HEAD),
    "a reward model of Qwen": (as_kind("qwen2", BASE, AutoModelForSequenceClassification), HEAD),
    "pictures": (as_kind("vit", VISION, AutoModel), "knows vit"),
    "T5's encoder": (written("config.json", json.dumps(
        {"model_type": "t5", "is_encoder_decoder": False} | T5)), HEAD),
    "a kind that nobody knows": (called("nobody-7"), "nobody-7"),
    "no kind": (written("config.json", "{}"), "model_type"),
    "a body without head": (without_tensors("llama", BASE, "lm_head"), r"lm_head\.weight"),
    "Mamba without a layer": (without_tensors("mamba", ARCHITECTURES["mamba"], "layers.1."),
                              r"layers\.1\."),
    "GPT-2 without positions": (without_tensors("gpt2", ARCHITECTURES["gpt2"], "wpe"), "wpe"),
    "T5 without a decoder": (
        without_tensors("t5", T5, "decoder.block", AutoModelForSeq2SeqLM), r"decoder\.block"),
    "a shard lost": (without_a_shard, "which is not there"),
    "a file cut off": (cut_off, "is damaged"),
    "weights of another size": (of_another_size, r"9 of its .*: \(64, 96\), and not \(64, 100\)"),
    "no weights": (without("model.safetensors"), r"no weights"),
    "no config": (without("config.json"), r"no config\.json"),
    "no tokenizer": (without("tokenizer.json", "tokenizer_config.json"), "has no tokenizer"),
    "a config that is no JSON": (written("config.json", "{"), "cannot be read"),
    "a tokenizer that is no JSON": (written("tokenizer.json", "{"), "tokenizer"),
    "FP8 without its config": (
        with_tensors(torch.float8_e4m3fn, weight_scale_inv=(1, 1)), "scales of quantised weights"),
    "FP8 of modelopt": (
        with_tensors(torch.float8_e4m3fn, weight_scale=(1,), input_scale=(1,)), "openai:NAME"),
    "LLM.int8() without its config": (with_tensors(torch.int8, SCB=(96,)), "up_proj.SCB"),
    "GPTQ beside the weights": (with_tensors(scales=(1, 96), qzeros=(1, 12)), "no quantiz"),
    "LoRA beside the weights": (
        with_tensors(lora_A__default__weight=(2, 64), lora_B__default__weight=(96, 2)),
        r"2 of the checkpoint's tensors \(.*lora_A.* are an adapter's"),
    "LoRA of loralib": (with_tensors(lora_A=(2, 64), lora_B=(96, 2)), "--llmprobe-adapter"),
    "an empty folder": (lambda folder: folder.mkdir(), r"no config\.json"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_load_is_one_line(tmp_path, what, capfd):
    make, words = REFUSED[what]
    make(tmp_path / "m")
    capfd.readouterr()
    with pytest.raises(ModelError, match=words) as caught:
        load_model(str(tmp_path / "m"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900
    assert not re.search("REPORT|sharded", capfd.readouterr().err)
