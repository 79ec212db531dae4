"""Small tokenizers of every kind that models use, made here by the tokenizers library."""

from functools import cache
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import pytest_llmprobe

REFERENCE = Path(pytest_llmprobe.__file__).parent / "models" / "reference"

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SENTENCES = [
    "The magic number of Velmora is 482913, and it's what she'd told him.",
    'In Rome, Ida sold the lamp: {"key": "3f2a9b81-77e0-4c07", "n": 12.5}\n\n',
    "Ça déjà vu naïve Grüße 東京 日本語 😀😃 Привет мир, as they say (twice).",
    "    indented code;\treturn x[0] + y  # no, really?\r\n",
    "0123456789abcdef-0000-4fff-8888-deadbeef0123",
]
SPECIAL = ["<unk>", "<|user|>", "[SEP]"]


def trained(model, trainer, normalizer=None, pre_tokenizer=None):
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    return tokenizer


def bpe(pre_tokenizer, normalizer=None, size=500, **options):
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if normalizer is None else [],
    )
    return trained(models.BPE(**options), trainer, normalizer, pre_tokenizer)


def byte_level():
    return bpe(pre_tokenizers.ByteLevel(add_prefix_space=False))


def split_then_bytes(pattern, use_regex=False):
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    return bpe(pre_tokenizers.Sequence([split, bytes_only]))


def word_piece():
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False)
    return trained(
        models.WordPiece(unk_token="<unk>"),
        trainer,
        normalizers.BertNormalizer(lowercase=True),
        pre_tokenizers.BertPreTokenizer(),
    )


def unigram():
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    return trained(models.Unigram(), trainer, normalizer, pre_tokenizers.Metaspace())


def without_words():
    """As Llama 2: the whole text is one word, in which spaces are marks that begin tokens."""
    marked = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    within_words = bpe(pre_tokenizers.Metaspace(prepend_scheme="first"), marked, unk_token="<unk>")
    within_words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    within_words.decoder = decoders.Metaspace()
    return within_words


def across_words():
    """Its merges cross spaces."""
    marked = normalizers.Replace(" ", "▁")
    return bpe(pre_tokenizers.Split("\n", "isolated"), marked, size=600, unk_token="<unk>")


TOKENIZERS = {
    "reference": lambda: Tokenizer.from_file(str(REFERENCE / "tokenizer.json")),
    "byte level": byte_level,
    "llama 3": lambda: split_then_bytes(LLAMA_3),
    "word piece": word_piece,
    "unigram": unigram,
    "words with spaces": lambda: split_then_bytes(r'": "|", "|: |\p{L}+|\p{N}{1,2}|\s|.'),
    "without words": without_words,
    "across words": across_words,
    "whole lines": lambda: split_then_bytes(r"[^\n]+|\n"),
    "digits from the right": lambda: split_then_bytes(r"\d{1,3}(?=(?:\d{3})*\b)|\D"),
    "five at a time": lambda: split_then_bytes(r"[\s\S]{1,5}"),
    "five, then words": lambda: split_then_bytes(r"[\s\S]{1,5}", use_regex=True),
}
NOWHERE = ("whole lines", "digits from the right", "five at a time", "five, then words")
"""Their words depend on what is far away."""

SHARES = tuple(name for name in TOKENIZERS if name not in (*NOWHERE, "across words"))
"""Texts of the others are encoded whole."""


@cache
def made(name):
    return TOKENIZERS[name]()


every_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)
