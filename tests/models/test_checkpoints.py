"""What tools write: it loads as transformers and PEFT load it, or one sentence says why not.

Every folder here is made of one tiny Llama with the reference model's tokenizer.
"""

import base64
import json
import shutil
from importlib.util import find_spec

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_gguf import write_gguf
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
)

from pytest_llmprobe import Engine, GenerateConfig, load_model
from pytest_llmprobe.errors import ModelError, RequestError
from pytest_llmprobe.generation import Request
from pytest_llmprobe.models.registry import REFERENCE, resolve
from pytest_llmprobe.models.token_counter import TokenCounter
from pytest_llmprobe.report.weights_text import weights_lines

# PEFT asks transformers by an old name.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
]

CONFIG = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "vocab_size": 4096,
    "bos_token_id": None,
    "eos_token_id": 0,
}
PROMPT = "Which city is meant?"
TOKENIZER = AutoTokenizer.from_pretrained(REFERENCE)


def saved(folder, kind=LlamaForCausalLM, config=None, **changes):
    torch.manual_seed(0)
    config = config or LlamaConfig(**CONFIG | {"vocab_size": len(TOKENIZER)} | changes)
    kind(config).eval().save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def rewritten(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return folder


def renamed(before):
    return lambda weights: {before(name): tensor for name, tensor in weights.items()}


def without(*names):
    return lambda weights: {k: v for k, v in weights.items() if not k.endswith(names)}


def logits(model):
    ids = torch.tensor([TOKENIZER(PROMPT)["input_ids"]])
    with torch.no_grad():
        return model(ids).logits


WRAPPED = {
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "DDP": lambda name: f"module.{name}",
    "DeepSpeed of a compiled one": lambda name: f"module._orig_mod.{name}",
    "compiled layers": lambda name: name.replace("layers.0.", "layers.0._orig_mod."),
    "FSDP": lambda name: name.replace("layers.", "_fsdp_wrapped_module.layers."),
    "checkpointed layers": lambda n: n.replace("layers.1.", "layers.1._checkpoint_wrapped_module."),
    "PEFT, merged and not unwrapped": lambda name: f"base_model.model.{name}",
    "Lightning Fabric": lambda name: f"_forward_module.{name}",
}


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("tool", WRAPPED)
def test_names_that_a_wrapper_marked_are_read_without_it(tmp_path, tool, tied):
    expected = logits(
        AutoModelForCausalLM.from_pretrained(saved(tmp_path / "plain", tie_word_embeddings=tied))
    )
    folder = rewritten(
        saved(tmp_path / "wrapped", tie_word_embeddings=tied), renamed(WRAPPED[tool])
    )
    loaded = load_model(str(folder))
    assert torch.equal(logits(loaded.model), expected)
    assert loaded.info["weights"]["unwrapped"]
    (line,) = weights_lines(loaded.info)
    assert line.startswith("weights: their names are read without ")


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_whole_checkpoint_has_nothing_to_say(tmp_path, tied):
    loaded = load_model(str(saved(tmp_path / "m", tie_word_embeddings=tied)))
    assert loaded.info["weights"] == {}


MISSING = {
    "an untied head": (without("lm_head.weight"), "lm_head.weight"),
    "one layer": (
        lambda weights: {k: v for k, v in weights.items() if "layers.1." not in k},
        "model.layers.1.",
    ),
    "a norm": (without("model.norm.weight"), "model.norm.weight"),
    "everything, by strange names": (renamed(lambda name: f"student.{name}"), "lm_head.weight"),
    "half of a wrapped one": (
        lambda weights: {f"module.{k}": v for k, v in weights.items() if "mlp" not in k},
        "mlp",
    ),
}


@pytest.mark.parametrize("what", MISSING)
def test_weights_that_are_missing_are_an_error_that_names_them(tmp_path, what):
    change, name = MISSING[what]
    folder = rewritten(saved(tmp_path / "m", tie_word_embeddings=False), change)
    with pytest.raises(ModelError, match="would be random") as error:
        load_model(str(folder))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_body_without_head_is_read_where_the_head_is_the_embedding(tmp_path):
    tied = saved(tmp_path / "tied", LlamaModel, tie_word_embeddings=True)
    expected = AutoModelForCausalLM.from_pretrained(tied)
    assert torch.equal(logits(load_model(str(tied)).model), logits(expected))
    with pytest.raises(ModelError, match=r"lm_head\.weight"):
        load_model(str(saved(tmp_path / "untied", LlamaModel, tie_word_embeddings=False)))


BERT = BertConfig(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=1,
    num_attention_heads=2,
    vocab_size=len(TOKENIZER),
)
NO_LANGUAGE_MODELS = {
    "a reward model": (LlamaForSequenceClassification, None),
    "BERT": (BertForMaskedLM, BERT),
    "BERT's body": (BertModel, BERT),
}


@pytest.mark.parametrize("what", NO_LANGUAGE_MODELS)
def test_what_is_no_causal_language_model_is_refused(tmp_path, what):
    kind, config = NO_LANGUAGE_MODELS[what]
    folder = saved(tmp_path / "m", kind, config, **({} if config else {"pad_token_id": 0}))
    with pytest.raises(ModelError, match="no causal language model"):
        load_model(str(folder))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("base") / "base", tie_word_embeddings=False)


def lora(base, folder, kind=LoraConfig, tokens=None, **options):
    """An adapter whose weights are drawn anew, so that it changes something."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    if tokens:
        model.resize_token_embeddings(tokens)
    wrapped = get_peft_model(model, kind(task_type="CAUSAL_LM", **options))
    for name, weight in wrapped.named_parameters():
        if weight.requires_grad and "lora" in name:
            torch.nn.init.normal_(weight, std=0.3)
    wrapped.save_pretrained(folder)
    return folder


LORA = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"]}


@pytest.mark.parametrize(
    "options",
    [LORA, LORA | {"use_rslora": True}, LORA | {"use_dora": True}, LORA | {"bias": "none"}],
    ids=["lora", "rslora", "dora", "no bias"],
)
def test_an_adapter_answers_as_peft_generates(tmp_path, base, options):
    folder = lora(base, tmp_path / "adapter", **options)
    loaded = load_model(str(folder))
    prompts = [PROMPT, "Give the value alone.", "Key: 12"]
    answers = Engine(loaded).generate(prompts, GenerateConfig(max_new_tokens=12))
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([Engine(loaded).backend.encode(prompt)])
        out = peft.generate(input_ids=ids, max_new_tokens=12, do_sample=False)
        said = out[0, ids.shape[1] :].tolist()
        assert list(answer.token_ids) == said[: len(answer.token_ids)]
    plain = load_model(str(base))
    assert loaded.info["fingerprint"] != plain.info["fingerprint"]
    given = load_model(str(base), adapter=str(folder))
    assert given.info["fingerprint"] == loaded.info["fingerprint"]


def test_an_adapter_may_bring_tokens_of_its_own(tmp_path, base):
    folder = lora(base, tmp_path / "adapter", tokens=len(TOKENIZER) + 3, **LORA)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<one>", "<two>", "<three>"])
    tokenizer.save_pretrained(folder)
    loaded = load_model(str(folder))
    assert len(loaded.tokenizer) == len(TOKENIZER) + 3
    assert loaded.model.get_input_embeddings().weight.shape[0] == len(TOKENIZER) + 3


def other_base(base, folder):
    lora(base, folder, **LORA)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"] = ["c_attn"]
    (folder / "adapter_config.json").write_text(json.dumps(config))


def half(base, folder):
    lora(base, folder, **LORA)
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({k: v for k, v in weights.items() if "layers.1" not in k}, path)


def absent_base(base, folder):
    lora(base, folder, **LORA)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "absent"
    (folder / "adapter_config.json").write_text(json.dumps(config))


def no_base(base, folder):
    lora(base, folder, **LORA)
    config = json.loads((folder / "adapter_config.json").read_text())
    del config["base_model_name_or_path"]
    (folder / "adapter_config.json").write_text(json.dumps(config))


def pickled(base, folder):
    lora(base, folder, **LORA)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def prompt_tuning(base, folder):
    lora(base, folder, PromptTuningConfig, num_virtual_tokens=4)


def no_json(base, folder):
    lora(base, folder, **LORA)
    (folder / "adapter_config.json").write_text("<<<<<<< ours")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (other_base, "does not fit its base"),
        (half, "is not in the adapter"),
        (absent_base, "unknown model 'absent'"),
        (no_base, "--llmprobe-adapter"),
        (pickled, "pickled"),
        (prompt_tuning, "cannot be merged"),
        (no_json, "cannot be read"),
    ],
)
def test_an_adapter_that_does_not_fit_is_one_sentence(tmp_path, base, damage, says):
    damage(base, tmp_path / "adapter")
    with pytest.raises(ModelError, match=says) as error:
        load_model(str(tmp_path / "adapter"))
    assert "\n" not in str(error.value)


@pytest.fixture
def gguf(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMPROBE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "models"
    folder.mkdir()
    write_gguf(folder / "tiny-Q8_0.gguf")
    return folder


@pytest.mark.parametrize("named", ["folder", "file"])
def test_a_gguf_file_is_a_model(gguf, named):
    file = gguf / "tiny-Q8_0.gguf"
    loaded = load_model(str(gguf if named == "folder" else file))
    oracle = AutoModelForCausalLM.from_pretrained(gguf, gguf_file=file.name, dtype=torch.float32)
    ids = torch.tensor([[1, 5, 9, 12]])
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, oracle(ids).logits)
    assert loaded.info["revision"].startswith("sha256 ")


def test_of_several_gguf_files_one_is_to_be_named(gguf):
    shutil.copy(gguf / "tiny-Q8_0.gguf", gguf / "tiny-Q4_0.gguf")
    with pytest.raises(ModelError, match="name one of them"):
        load_model(str(gguf))
    assert load_model(str(gguf / "tiny-Q4_0.gguf")).info["parameters"] > 0


def test_a_piece_of_a_gguf_model_says_what_to_do(gguf):
    piece = (gguf / "tiny-Q8_0.gguf").rename(gguf / "tiny-00001-of-00002.gguf")
    with pytest.raises(ModelError, match="join the pieces"):
        load_model(str(piece))


def test_a_gguf_file_that_transformers_cannot_read_can_be_served(gguf):
    file = gguf / "tiny-Q8_0.gguf"
    file.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(ModelError, match="openai:NAME"):
        load_model(str(file))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("LocalEntryNotFoundError", r"hf download org/name-GGUF sub/name-Q4_K_M\.gguf"),
        ("EntryNotFoundError", r"org/name-GGUF on the hub has no file sub/name-Q4_K_M\.gguf"),
        ("GatedRepoError", "accept its licence"),
        ("RepositoryNotFoundError", "or it is private"),
    ],
)
def test_a_gguf_file_on_the_hub_is_a_source(monkeypatch, kind, says):
    def download(name, file, revision, local_files_only):
        assert (name, file, revision) == ("org/name-GGUF", "sub/name-Q4_K_M.gguf", None)
        raise getattr(errors, kind).__new__(getattr(errors, kind))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    spec = resolve("org/name-GGUF:sub/name-Q4_K_M.gguf")
    with pytest.raises(ModelError, match=says):
        _ = spec.folder


def test_a_pad_token_without_a_row_is_never_looked_up(tmp_path):
    folder = saved(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    prompts, config = [PROMPT, "Key: 12, 13, 14"], GenerateConfig(max_new_tokens=8)
    answers = Engine(load_model(str(folder))).generate(prompts, config)
    plain = saved(tmp_path / "plain")
    expected = Engine(load_model(str(plain))).generate(prompts, config)
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]


def test_a_token_without_a_row_is_the_error_of_its_case(tmp_path):
    folder = saved(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(folder)
    requests = [Request(p, GenerateConfig(max_new_tokens=4)) for p in (PROMPT, "a <tool>", "Key:")]
    first, second, third = Engine(load_model(str(folder))).attempt(requests)
    assert isinstance(second, RequestError)
    assert "'<tool>'" in str(second)
    assert str(len(TOKENIZER)) in str(second)
    assert first.token_ids
    assert third.token_ids


def bytes_as_tiktoken(n=256):
    return "".join(f"{base64.b64encode(bytes([i])).decode()} {i}\n" for i in range(n))


TEKKEN = {
    "config": {
        "pattern": "[^ ]+| +",
        "num_vocab_tokens": 256,
        "default_vocab_size": 259,
        "default_num_special_tokens": 3,
        "version": "v3",
    },
    "vocab": [
        {"rank": i, "token_bytes": base64.b64encode(bytes([i])).decode(), "token_str": None}
        for i in range(256)
    ],
    "special_tokens": [
        {"rank": rank, "token_str": text, "is_control": True}
        for rank, text in enumerate(["<unk>", "<s>", "</s>"])
    ],
}


def without_tokenizer(folder):
    saved(folder)
    for path in (*folder.glob("tokenizer*"), *folder.glob("special*"), *folder.glob("chat*")):
        path.unlink()
    return folder


def test_a_tekken_tokenizer_is_left_to_transformers(tmp_path):
    folder = without_tokenizer(tmp_path / "m")
    (folder / "tekken.json").write_text(json.dumps(TEKKEN))
    loaded = load_model(str(folder))
    ids = [3 + byte for byte in b"ab c"]
    assert Engine(loaded).backend.encode("ab c")[-4:] == ids
    assert TokenCounter(loaded.spec).ids("ab c") == Engine(loaded).backend.encode("ab c")
    assert loaded.tokenizer.decode(ids) == "ab c"


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("tiktoken.model", "tiktoken"),
        ("qwen.tiktoken", "tiktoken"),
        ("spiece.model", "sentencepiece"),
        ("sentencepiece.bpe.model", "sentencepiece"),
    ],
)
def test_a_tokenizer_that_needs_a_package_names_it(tmp_path, name, package):
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    folder = without_tokenizer(tmp_path / "m")
    (folder / name).write_text(bytes_as_tiktoken())
    with pytest.raises(ModelError, match="cannot be loaded") as error:
        load_model(str(folder))
    assert package in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_any_tokenizer_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_model(str(without_tokenizer(tmp_path / "m")))
