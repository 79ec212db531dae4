"""Encoder-decoder models: answers as transformers generates them; what is refused says why."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

from pytest_llmprobe import Engine, GenerateConfig, RawPrompt, load_model
from pytest_llmprobe.errors import ModelError, RequestError, UnsupportedError
from pytest_llmprobe.generation import Request, Steer
from pytest_llmprobe.whitebox.hidden_states import HiddenStateReader
from pytest_llmprobe.whitebox.log_probabilities import log_probabilities

WORDS = ["<pad>", "</s>", "<unk>", "<s>", *(f"w{n}" for n in range(60))]
PROMPTS = ["w1 w2 w3", "w9", "w4 w4 w8 w21 w33 w5 w6 w50"]
WIDTH = {"d_model": 32, "vocab_size": len(WORDS), "pad_token_id": 0, "eos_token_id": 1}
T5 = WIDTH | {"d_ff": 48, "d_kv": 16, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
BART = WIDTH | {
    **{f"{part}_layers": 1 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 48 for part in ("encoder", "decoder")},
    "max_position_embeddings": 64,
    "bos_token_id": 3,
    "decoder_start_token_id": 1,
    "init_std": 1.0,
}
KINDS = {
    "T5": (T5ForConditionalGeneration, T5Config(**T5, initializer_factor=3.0)),
    "FLAN-T5": (
        T5ForConditionalGeneration,
        T5Config(
            **T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False, initializer_factor=3.0
        ),
    ),
    "BART": (BartForConditionalGeneration, BartConfig(**BART, forced_bos_token_id=3)),
    "mBART": (MBartForConditionalGeneration, MBartConfig(**BART, forced_bos_token_id=7)),
    "Marian": (MarianMTModel, MarianConfig(**BART, scale_embedding=True)),
}


def tokenizer():
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(params=KINDS)
def folder(request, tmp_path):
    torch.manual_seed(1)
    kind, config = KINDS[request.param]
    model = kind(config).eval()
    model.generation_config.num_beams, model.generation_config.repetition_penalty = 3, 4.0
    model.save_pretrained(tmp_path / "m")
    tokenizer().save_pretrained(tmp_path / "m")
    return tmp_path / "m"


HOW = [{"num_beams": 1}, {"repetition_penalty": 1.7}, {"num_beams": 3}]


@pytest.mark.parametrize("how", [*HOW, {"encoder_repetition_penalty": 3.0}], ids=str)
@pytest.mark.parametrize("batch_size", [None, 1])
def test_answers_are_those_of_generate(folder, batch_size, how):
    engine = Engine(load_model(str(folder)), batch_size=batch_size)
    config = GenerateConfig(max_new_tokens=10, **how)
    answers = engine.generate(PROMPTS, config)
    oracle = AutoModelForSeq2SeqLM.from_pretrained(folder)
    oracle.generation_config.forced_eos_token_id = None  # an answer may be cut off
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor([tokenizer()(prompt)["input_ids"]])
        assert ids[0, -1] == 1
        out = oracle.generate(
            input_ids=ids,
            max_new_tokens=10,
            do_sample=False,
            **{"num_beams": 1, "repetition_penalty": 1.0} | how,
        )
        assert list(answer.token_ids) == out[0, 1:].tolist()
        assert answer.usage.prompt_tokens == ids.shape[1]
    assert len({answer.token_ids for answer in answers}) > 1


def test_contrastive_search_is_refused(folder):
    config = GenerateConfig(max_new_tokens=3, penalty_alpha=0.5, top_k=3)
    with pytest.raises(UnsupportedError, match="contrastive search compares the hidden states"):
        Engine(load_model(str(folder))).generate(PROMPTS, config)


def test_log_probabilities_are_those_of_the_decoder_after_an_empty_text(folder):
    loaded = load_model(str(folder))
    texts = [[5, 9, 12, 30, 1], [44, 8], [7]]
    found = log_probabilities(loaded, texts)
    oracle = AutoModelForSeq2SeqLM.from_pretrained(folder)
    start = oracle.config.decoder_start_token_id
    for text, one in zip(texts, found, strict=True):
        with torch.no_grad():
            logits = oracle(
                input_ids=torch.tensor([[1]]), decoder_input_ids=torch.tensor([[start, *text[:-1]]])
            ).logits[0]
        expected = logits.log_softmax(-1)[range(len(text)), text][1:]
        assert torch.allclose(torch.from_numpy(one.log_probability).float(), expected, atol=1e-4)


def test_what_looks_into_the_model_says_that_it_has_an_encoder(folder):
    loaded = load_model(str(folder))
    with pytest.raises(UnsupportedError, match="an encoder and a decoder"):
        HiddenStateReader(loaded)
    steered = Request("w1 w2", GenerateConfig(max_new_tokens=2), steer=Steer(("w1",), 1.0))
    (error,) = Engine(loaded).attempt([steered])
    assert isinstance(error, UnsupportedError)
    assert "only decoders can be steered" in str(error)


def test_prompt_and_answer_have_a_context_each(tmp_path):
    kind, config = KINDS["BART"]
    kind(config).save_pretrained(tmp_path / "m")
    tokenizer().save_pretrained(tmp_path / "m")
    engine = Engine(load_model(str(tmp_path / "m")))
    asked = [
        Request(RawPrompt(" ".join(["w1"] * words)), GenerateConfig(max_new_tokens=room))
        for words, room in ((63, 64), (64, 4), (4, 65))
    ]
    fits, long, wide = engine.attempt(asked)
    assert fits.usage.prompt_tokens == 64
    for error in (long, wide):
        assert isinstance(error, RequestError)
        assert "take 64 each" in str(error)


def test_an_encoder_alone_is_refused(tmp_path):
    T5EncoderModel(T5Config(**T5, tie_word_embeddings=False)).save_pretrained(tmp_path / "m")
    tokenizer().save_pretrained(tmp_path / "m")
    with pytest.raises(ModelError, match="no language model that generates"):
        load_model(str(tmp_path / "m"))


def test_a_string_is_gone_on_with_by_its_decoder(folder, tmp_path, capsys):
    """``llmprobe continue`` has the encoder read a prefix, without the token that ends texts."""
    from pytest_llmprobe.cli import main

    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text(" ".join(f"w{n % 7}" for n in range(60)))
    asked = ["--model", str(folder)]
    prefixes = ["--dataset", str(tmp_path / "corpus"), "--prefix-tokens", "10"]
    assert main(["prefixes", *asked, *prefixes, "--out", str(tmp_path / "maps")]) == 0
    (made,) = (tmp_path / "maps").iterdir()
    out = tmp_path / "strings.jsonl"
    strings = ["--num-strings", "1", "--max-length", "4", "--temperature", "0", "--out", str(out)]
    assert main(["continue", "--prefix-map", str(made), *asked, *strings]) == 0
    assert "1 strings, " in capsys.readouterr().out
    line = json.loads(out.read_text().splitlines()[0])
    loaded = load_model(str(folder))
    ids = loaded.tokenizer(line["prefix"], add_special_tokens=False, return_tensors="pt").input_ids
    config = GenerationConfig(**loaded.model.generation_config.to_diff_dict(), max_new_tokens=4)
    said = loaded.model.generate(ids, generation_config=config, do_sample=False)[0, 1:].tolist()
    assert line["generated_ids"] == said
