"""BERTScore against its definition; against the package itself: docs/LOG.md."""

import json
import math
import random

import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, WordPiece
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from pytest_llmprobe.errors import ModelError, SettingsError
from pytest_llmprobe.experiments.french_summary import bert_encoder
from pytest_llmprobe.experiments.french_summary.bert_encoder import DEFAULT, find_bert_encoder
from pytest_llmprobe.experiments.french_summary.stories import story
from pytest_llmprobe.whitebox.bert_score import BertScore, BertScorer

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.3,
}
NOTHING = BertScore(0, 0, 0)


def texts():
    rng = random.Random(0)
    return [story(rng, 0).summary_fr for _ in range(60)]


def bert():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{name[1:-1].lower()}_token": name for name in special}
    model = BertModel(BertConfig(vocab_size=400, max_position_embeddings=64, **SMALL))
    return model, PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def roberta():
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    bpe = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in bpe["merges"]]
    model = RobertaModel(RobertaConfig(vocab_size=500, max_position_embeddings=66, **SMALL))
    return model, RobertaTokenizer(vocab=bpe["vocab"], merges=merges, model_max_length=60)


@pytest.fixture(scope="module", params=[bert, roberta], ids=["bert", "roberta"])
def encoder(request):
    torch.manual_seed(0)
    return request.param()


def by_definition(encoder, layer, candidate, reference):
    """P, R and F1 by loops over tokens, of the encoder cut after a layer, as bert-score cuts it."""
    model, tokenizer = encoder
    layers = model.encoder.layer
    ends = {tokenizer.cls_token_id, tokenizer.sep_token_id}
    vectors, kept = [], []
    try:
        model.encoder.layer = layers[:layer]
        for text in (candidate, reference):
            spaced = f" {text.strip()}" if isinstance(tokenizer, RobertaTokenizer) else text.strip()
            ids = tokenizer(spaced)["input_ids"]
            with torch.inference_mode():
                vectors.append(model.eval()(torch.tensor([ids])).last_hidden_state[0].tolist())
            kept.append([place for place, token in enumerate(ids) if token not in ends])
    finally:
        model.encoder.layer = layers

    def cosine(x, y):
        dot = math.fsum(a * b for a, b in zip(x, y, strict=True))
        return dot / math.sqrt(math.fsum(a * a for a in x) * math.fsum(b * b for b in y))

    x, y = vectors
    precision = sum(max(cosine(x[i], other) for other in y) for i in kept[0]) / len(kept[0])
    recall = sum(max(cosine(y[j], other) for other in x) for j in kept[1]) / len(kept[1])
    return precision, recall, 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_scores_are_those_of_the_definition(encoder, layer):
    scorer = BertScorer(*encoder, layer)
    some = texts()[:6]
    pairs = [*zip(some, reversed(some), strict=True), (f"  {some[0]} ", some[0]), ("Oui", some[1])]
    for candidate, reference in pairs:
        score = scorer(candidate, reference)
        expected = by_definition(encoder, layer, candidate, reference)
        assert (score.precision, score.recall, score.f1) == pytest.approx(expected, abs=1e-5)


def test_the_first_word_is_that_of_a_sentence(encoder):
    model, tokenizer = encoder
    scorer = BertScorer(model, tokenizer)
    said = tokenizer.convert_ids_to_tokens(scorer._ids("une lampe"))
    assert said[1].startswith("Ġ") == isinstance(tokenizer, RobertaTokenizer)


def test_a_text_is_most_like_itself_and_more_like_its_neighbour_than_noise(encoder):
    scorer = BertScorer(*encoder)
    text = texts()[0]
    same = scorer(text, text)
    assert same.f1 == pytest.approx(1, abs=1e-5)
    assert scorer(text[:-20], text).f1 > scorer("9 # 9 # 9", text).f1


@pytest.mark.parametrize("empty", ["", " \n "])
def test_an_empty_text_scores_nothing(encoder, empty):
    scorer = BertScorer(*encoder)
    assert scorer(empty, "une lampe") == scorer("une lampe", empty) == NOTHING
    assert scorer(empty, empty) == NOTHING


def test_ends_within_a_text_are_not_averaged_over(encoder):
    model, tokenizer = encoder
    scorer = BertScorer(model, tokenizer)
    text = f"une lampe {tokenizer.sep_token}"
    _, weights = scorer._embed(text)
    assert weights.tolist() == [0, *[1] * (len(weights) - 3), 0, 0]


def test_a_text_of_any_length_is_cut_to_the_encoders_positions(encoder):
    scorer = BertScorer(*encoder)
    long = "une lampe " * 5_000
    assert len(scorer._ids(long)) in (60, 62)
    assert scorer(long, long).f1 == pytest.approx(1, abs=1e-5)
    assert scorer("\N{GRINNING FACE}\x00\ud7ff" * 9_999, "une lampe").f1 <= 1


def test_a_score_does_not_depend_on_what_was_scored_before(encoder):
    some = texts()[:4]
    fresh = [BertScorer(*encoder)(text, some[0]) for text in some]
    scorer = BertScorer(*encoder)
    assert [scorer(text, some[0]) for text in (*some, *some)] == fresh * 2


def test_the_layer_is_the_last_where_there_are_fewer(encoder):
    assert BertScorer(*encoder).layer == 3
    text, other = texts()[:2]
    assert BertScorer(*encoder, 3)(text, other) == BertScorer(*encoder)(text, other)
    assert BertScorer(*encoder, 1)(text, other) != BertScorer(*encoder)(text, other)
    with pytest.raises(SettingsError, match="layer=-1: give 0 for the embeddings"):
        BertScorer(*encoder, -1)


# Where the encoder is


@pytest.fixture
def folder(encoder, tmp_path):
    for part in encoder:
        part.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_an_encoder_of_ones_own_is_found_and_loaded(encoder, folder, monkeypatch):
    monkeypatch.setenv(bert_encoder.VARIABLE, str(folder))
    found = find_bert_encoder()
    assert (found.name, found.folder, found.missing) == (str(folder), folder, "")
    text, other = texts()[:2]
    assert BertScorer.load(found.folder)(text, other).f1 == pytest.approx(
        BertScorer(*encoder)(text, other).f1, abs=1e-6
    )


def test_an_encoder_that_is_not_there_is_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv(bert_encoder.VARIABLE, raising=False)
    found = find_bert_encoder()
    assert (found.name, found.folder) == (DEFAULT, None)
    assert found.missing == (
        f"{DEFAULT} is not on this machine: run `hf download {DEFAULT}`, or name another encoder "
        "with LLMPROBE_BERT_SCORE=FOLDER or a hub id in its cache"
    )
    for name in ("no/such/folder/at/all", "no-such-encoder", " "):
        monkeypatch.setenv(bert_encoder.VARIABLE, name)
        assert find_bert_encoder().folder is None


def test_the_hubs_cache_is_looked_into(encoder, folder, monkeypatch, tmp_path):
    cache = tmp_path / "cache"
    snapshot = cache / "models--almanach--camembert-base" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    reference = snapshot.parents[1] / "refs" / "main"
    reference.parent.mkdir()
    reference.write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.delenv(bert_encoder.VARIABLE, raising=False)
    assert find_bert_encoder().folder == snapshot


def test_weights_that_are_no_safetensors_are_not_loaded(folder, monkeypatch):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    monkeypatch.setenv(bert_encoder.VARIABLE, str(folder))
    assert find_bert_encoder().missing == f"{folder} has no model.safetensors on this machine"
    with pytest.raises(ModelError, match="cannot be loaded as an encoder"):
        BertScorer.load(folder)
