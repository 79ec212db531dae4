"""The reference model's tokenizer, built from a few texts."""

import json
import random
import re
import uuid
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer

from pytest_llmprobe.models.reference.training.tokenizer import (
    SEPARATORS,
    SPECIAL_TOKENS,
    VOCABULARY_SIZE,
    build,
    save,
)

TEXTS = [
    "Lena lives in Lisbon and paints small boats every morning.",
    'Extract the value of the key below. Key: "3f2a4b1c-00ff-4d2e-9abc-0123456789ab"',
    "The decade began with a cafe, a beaded face and a faded facade — naïve, 日本.",
    "The old lighthouse keeper wrote a letter to the harbour master in 1999.",
] * 5
TOKENIZER = build(TEXTS)
CONTEXTS = {
    "start and end": "{}",
    "quoted": 'The key "{}" is given.',
    "after a space": "key {} here",
    "after a colon": "Key: {}",
    "JSON": '{{"{}": 1}}',
    "before a comma": "{}, then",
    "before a newline": "a\n{}\nb",
    "before a full stop": "It is {}.",
    "arrow": "x -> {} -> y",
    "bold": "**{}**",
    "between letters": "a日f{}s",
    "after digits and a dash": "12-7-{}-1",
}


def encode(text, tokenizer=TOKENIZER):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def tokens(text):
    return [TOKENIZER.decode([i]) for i in encode(text)]


def random_uuid(rng):
    return str(uuid.UUID(int=rng.getrandbits(128)))


def uuid_tokens(value):
    return re.findall("-?[0-9a-f]{2}", value)


texts = st.text() | st.text(alphabet='abc0129-*":,{}\n >é日🙂\u0301')


@given(texts)
def test_any_text_comes_back(text):
    if any(token in text for token in SPECIAL_TOKENS):
        return
    decoded = TOKENIZER.decode(
        encode(text), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    assert decoded == text


@given(texts)
def test_offsets_cover_the_text(text):
    encoding = TOKENIZER(text, add_special_tokens=False, return_offsets_mapping=True)
    covered = set()
    for start, end in encoding["offset_mapping"]:
        assert 0 <= start < end <= len(text)
        covered.update(range(start, end))
    assert covered == set(range(len(text)))


def test_offsets_give_the_text_of_each_token():
    text = 'Lena: "3f2a4b1c-00ff-4d2e-9abc-0123456789ab", then 123456 -> x'
    encoding = TOKENIZER(text, return_offsets_mapping=True)
    (_, *ids), (_, *offsets) = encoding["input_ids"], encoding["offset_mapping"]
    assert TOKENIZER.is_fast
    assert [text[start:end] for start, end in offsets] == [TOKENIZER.decode([i]) for i in ids]


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS.keys())
def test_a_uuid_is_16_tokens(context):
    rng = random.Random(0)
    before, after = (tokens(part) for part in context.replace("{{", "{").split("{}", 1))
    values = [random_uuid(rng) for _ in range(2000)]
    encoded = TOKENIZER([context.format(v) for v in values], add_special_tokens=False)["input_ids"]
    ids = TOKENIZER.get_vocab()
    for value, found in zip(values, encoded, strict=True):
        at = found.index(ids[value[:2]], max(0, len(before) - 1))
        assert found[at : at + 16] == [ids[token] for token in uuid_tokens(value)]
        assert len(found) <= len(before) + 16 + len(after)


def test_a_masked_uuid_keeps_its_other_pairs():
    rng = random.Random(1)
    for place in [i for i in range(36) if i not in (8, 13, 18, 23)] * 5:
        value = random_uuid(rng)
        masked = f"{value[:place]}*{value[place + 1 :]}"
        found = tokens(f"Key: {masked}.")[2:-1]
        whole = [token for token in re.findall("-?[0-9a-f*]{2}", masked) if "*" not in token]
        assert "".join(found) == masked
        assert [token for token in found if token in whole] == whole
        assert len(found) <= 18


@pytest.mark.parametrize("separator", SEPARATORS)
def test_a_separator_is_one_token(separator):
    assert tokens(separator) == [separator]


@pytest.mark.parametrize(
    "text", ['{{"{}": "{}", "{}": "{}"}}', "{}: {}\n{}: {}", '"{}"\n"{}"', "{} -> {} -> {}"]
)
def test_a_value_begins_17_tokens_after_its_key(text):
    rng = random.Random(2)
    values = [random_uuid(rng) for _ in range(text.count("{}"))]
    ids = encode(text.format(*values))
    firsts = [token[0] for token in map(encode, values)]
    starts = [i for i, _ in enumerate(ids) if ids[i : i + 16] in map(encode, values)]
    assert [ids[i] for i in starts] == firsts
    assert {later - earlier for earlier, later in pairwise(starts)} == {17}


@pytest.mark.parametrize("word", ["Lena", "lighthouse", "zebra", "naïve", "bead"])
def test_a_word_is_the_same_in_every_place(word):
    alone = tokens(word)
    assert tokens(f" {word}") == [" ", *alone]
    assert tokens(f'"{word}"') == ['"', *alone, '"']
    assert tokens(f'{{"{word}": "{word}"}}') == ['{"', *alone, '": "', *alone, '"}']


def test_digits_come_in_pairs_from_the_left():
    assert tokens("123456 12345") == ["12", "34", "56", " ", "12", "34", "5"]


def test_words_seen_often_are_short():
    assert tokens("lighthouse") == ["lighthouse"]
    assert len(encode("Lena lives in Lisbon")) == 7


def test_the_same_texts_give_the_same_tokenizer():
    again = build(iter(TEXTS))
    assert again.backend_tokenizer.to_str() == TOKENIZER.backend_tokenizer.to_str()


def test_the_vocabulary_keeps_its_limit():
    rng = random.Random(3)
    words = ("".join(rng.choices("abcdefghijklmnop", k=6)) for _ in range(3000))
    full = build([" ".join(words)])
    assert len(full) == VOCABULARY_SIZE
    assert sorted(full.get_vocab().values()) == list(range(VOCABULARY_SIZE))
    assert all(full.get_vocab()[token] == i for i, token in enumerate(SPECIAL_TOKENS))
    assert len(encode(str(uuid.UUID(int=5)), full)) == 16


def test_plain_text_gets_one_bos():
    assert TOKENIZER("Lena")["input_ids"] == [TOKENIZER.bos_token_id, *encode("Lena")]


def test_the_chat_template():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " Hi\n"},
        {"role": "assistant", "content": "Hello"},
    ]
    text = TOKENIZER.apply_chat_template(messages, tokenize=False)
    assert text == (
        "<|bos|><|system|>Be brief.<|end|><|user|> Hi\n<|end|><|assistant|>Hello<|end|>"
    )
    prompt = TOKENIZER.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt)
    assert prompt.endswith("<|end|><|assistant|>")
    ids = TOKENIZER.apply_chat_template(messages, return_dict=False)
    assert ids == encode(text)
    assert ids.count(TOKENIZER.bos_token_id) == 1
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "Be brief. Hi\nHello"


def test_an_unknown_role_is_refused():
    with pytest.raises(TemplateError, match="Unknown role tool"):
        TOKENIZER.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_special_tokens_in_a_text_are_special():
    assert encode("a<|end|>") == [*encode("a"), TOKENIZER.eos_token_id]
    as_text = TOKENIZER("a<|end|>", add_special_tokens=False, split_special_tokens=True)
    assert TOKENIZER.eos_token_id not in as_text["input_ids"]


def test_the_saved_files_load_without_our_code(tmp_path):
    save(TOKENIZER, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert (tmp_path / "tokenizer.json").stat().st_size < 200_000
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["clean_up_tokenization_spaces"] is False

    loaded = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    text = 'Key: "3f2a4b1c-00ff-4d2e-9abc-0123456789ab"\n\nLena — 日本 123'
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert loaded.decode(encode(text, loaded)) == text
    assert loaded.chat_template == TOKENIZER.chat_template
    assert loaded.model_max_length == 4096
    assert (loaded.pad_token, loaded.bos_token, loaded.eos_token) == SPECIAL_TOKENS[:3]
    assert set(loaded.all_special_tokens) == set(SPECIAL_TOKENS)
