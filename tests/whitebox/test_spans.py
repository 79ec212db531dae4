"""A span's tokens through chat templates and tokenizers of several kinds."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import loaded
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pytest_llmprobe.case import RawPrompt, Span
from pytest_llmprobe.errors import CasesError, RequestError
from pytest_llmprobe.models.prompts import PromptEncoder
from pytest_llmprobe.models.registry import REFERENCE
from pytest_llmprobe.whitebox.spans import SpannedPrompt, TokenSpan, locate, locate_with

SENTENCES = [
    "Please answer in French, and keep it short: the red stone is here.",
    "Ça déjà vu naïve Grüße 東京 日本語 😀😃 Привет мир, as they say (twice).",
    '{"key": "3f2a9b81-77e0-4c07", "n": 12.5}\n\n    indented;\treturn x[0] + y\n',
]
SPECIAL = ["<unk>", "<s>", "<|user|>", "<|assistant|>", "<|end|>"]


def trained(model, trainer, normalizer, pre_tokenizer, decoder):
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoder
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    return tokenizer


def byte_level():
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return trained(models.BPE(), trainer, None, pre_tokenizer, decoders.ByteLevel())


def unigram():
    trainer = trainers.UnigramTrainer(
        vocab_size=160, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    return trained(
        models.Unigram(),
        trainer,
        normalizers.NFKC(),
        pre_tokenizers.Metaspace(),
        decoders.Metaspace(),
    )


def without_words():
    """As Llama 2: the whole text is one word, in which spaces are marks that begin tokens."""
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    marked = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    unsplit = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return trained(models.BPE(unk_token="<unk>"), trainer, marked, unsplit, decoders.Metaspace())


TEMPLATES = {
    "chatml": "{% for m in messages %}<|user|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "trimming": "<s>{% for m in messages %}<|user|> {{ m.content | trim }}<|end|>{% endfor %}",
    "system first": "<s>{% if messages[0].role == 'system' %}{% set s = messages[0].content %}"
    "{% set rest = messages[1:] %}{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}<|user|>{% if loop.last %}{{ s }}\n\n{% endif %}"
    "{{ m.content }}{% endfor %}",
}
KINDS = {"byte level": byte_level, "unigram": unigram, "without words": without_words}


@cache
def made(kind, template="chatml"):
    if kind == "reference":
        return AutoTokenizer.from_pretrained(REFERENCE)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=KINDS[kind](), unk_token="<unk>", bos_token="<s>", eos_token="<|end|>"
    )
    wrapped.chat_template = TEMPLATES.get(template, template)
    return wrapped


every_tokenizer = pytest.mark.parametrize("kind", ["reference", *KINDS])
MESSAGES = [
    {"role": "system", "content": "  Please answer in French, and keep it short: "},
    {"role": "user", "content": SENTENCES[1] + "\n" + SENTENCES[2] + "the red stone is here.  "},
]
PIECES = [
    "answer in French",
    "keep it short",
    "déjà vu",
    "日本語",
    "😀",
    "мир",
    'n": 12.5',
    "stone",
]


def check(tokenizer, prompt, span, found, chat=True):
    ids = PromptEncoder(tokenizer, chat).ids(prompt)
    assert list(found.ids) == ids
    (tokens,) = found.spans
    assert tokens.positions == tuple(range(tokens.positions[0], tokens.positions[-1] + 1))
    said = [ids[i] for i in tokens.positions]
    assert tokens.text == tokenizer.decode(said)
    if "<unk>" not in tokens.text:
        assert squeezed(span) in squeezed(tokens.text)
        for fewer in (said[1:], said[:-1]):
            assert squeezed(span) not in squeezed(tokenizer.decode(fewer))


def squeezed(text):
    """Without white space, which some tokenizers do not give back."""
    return "".join(text.split())


@every_tokenizer
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("piece", PIECES)
def test_the_tokens_of_a_span_say_it(kind, template, piece):
    tokenizer = made(kind, template)
    found = locate_with(tokenizer, MESSAGES, piece)
    check(tokenizer, MESSAGES, piece, found)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_substring_of_any_prompt(data):
    kind = data.draw(st.sampled_from(["reference", *KINDS]))
    tokenizer = made(kind)
    words = st.sampled_from([*" \n.,:é東😀", "stone", "in French", "<|user|>", "  ", "1", "\ue000"])
    content = "xy" + "".join(data.draw(st.lists(words, min_size=1, max_size=12)))
    start = data.draw(st.integers(2, len(content) - 1))
    end = data.draw(st.integers(start + 1, len(content)))
    wanted = content[start:end].strip()
    if not wanted:
        return
    start = content.index(wanted, start)
    places = [i for i in range(len(content)) if content.startswith(wanted, i)]
    prompt = [{"role": "user", "content": content}]
    found = locate_with(tokenizer, prompt, Span(wanted, occurrence=places.index(start)))
    assert list(found.ids) == PromptEncoder(tokenizer, True).ids(prompt)
    rendered = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    first = rendered.index(content) + start
    encoded = tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
    covered = {at for i in found.positions for at in range(*encoded["offset_mapping"][i])}
    others = [i for i in range(len(found.ids)) if i not in found.positions]
    if kind in ("reference", "byte level"):
        assert covered >= set(range(first, first + len(wanted)))
    for i in others:  # no token outside has a character of the span
        low, high = encoded["offset_mapping"][i]
        assert high <= first or low >= first + len(wanted) or low == high


@every_tokenizer
def test_prompts_without_a_template(kind):
    tokenizer = made(kind)
    for prompt in (SENTENCES[0], RawPrompt(SENTENCES[0])):
        found = locate_with(tokenizer, prompt, "in French", chat_template=False)
        check(tokenizer, prompt, "in French", found, chat=False)
    ids = PromptEncoder(tokenizer, True).ids(RawPrompt(SENTENCES[0]))
    same = RawPrompt(SENTENCES[0], tuple(ids))
    assert list(locate_with(tokenizer, same, "in French").ids) == ids
    with pytest.raises(RequestError, match="not those of its text"):
        locate_with(tokenizer, RawPrompt(SENTENCES[0], (*ids, ids[0])), "in French")


def test_a_raw_prompt_that_a_template_has_written():
    tokenizer = made("reference")
    text = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    expected = locate_with(tokenizer, MESSAGES, "in French")
    assert locate_with(tokenizer, RawPrompt(text, ids), "in French") == expected


def test_a_loaded_model_and_several_spans():
    spans = [Span("in French", level=2), "keep it", Span("red", level=0.5)]
    found = locate(loaded(), SENTENCES[0], spans)
    assert [span.level for span in found.spans] == [2, 1, 0.5]
    assert [span.text.strip() for span in found.spans] == ["in French", "keep it", "red"]
    assert list(found.ids) == PromptEncoder(loaded().tokenizer, True).ids(SENTENCES[0])
    bias = found.bias(3)
    assert {bias[i] for i in found.spans[0].positions} == {6}
    assert sum(map(bool, bias)) == len(found.positions)


def test_a_border_token_that_two_spans_share_gets_the_higher_level():
    tokenizer = made("byte level")
    word = "indented"
    found = locate_with(tokenizer, SENTENCES[2], [Span("ind", 2), Span("ented", 0.5), word])
    shared = set(found.spans[0].positions) & set(found.spans[1].positions)
    assert all(found.bias(1)[position] == 2 for position in shared)
    assert set(found.spans[2].positions) == {*found.spans[0].positions, *found.spans[1].positions}


def test_one_of_several_occurrences():
    tokenizer = made("byte level")
    messages = [
        {"role": "system", "content": "say red"},
        {"role": "user", "content": "red, red and blue"},
    ]
    with pytest.raises(CasesError, match=r"'red' 3 times; say which by occurrence=0 to 2"):
        locate_with(tokenizer, messages, "red")
    starts = [
        locate_with(tokenizer, messages, span).positions[0]
        for span in (
            *(Span("red", occurrence=n) for n in range(3)),
            Span("red", message=0),
            Span("red", message=1, occurrence=1),
        )
    ]
    assert starts[0] < starts[1] < starts[2]
    assert starts[3:] == [starts[0], starts[2]]
    with pytest.raises(CasesError, match="no occurrence 3"):
        locate_with(tokenizer, messages, Span("red", occurrence=3))
    with pytest.raises(CasesError, match="no message 2"):
        locate_with(tokenizer, messages, Span("red", message=2))
    with pytest.raises(CasesError, match="no occurrence -1"):
        locate_with(tokenizer, messages, Span("red", occurrence=-1))


@pytest.mark.parametrize("wanted", ["red stones", "Red"])
def test_a_span_that_is_not_there(wanted):
    with pytest.raises(CasesError, match=f"does not hold '{wanted}'"):
        locate_with(made("byte level"), SENTENCES[0], wanted)


def test_a_token_outside_the_prompt():
    with pytest.raises(CasesError, match="token 3 of a span is outside a prompt of 3 tokens"):
        SpannedPrompt((5, 6, 7), (TokenSpan((3,)),))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("<s>{{ messages[0].role }}", "leaves the user's message out"),
        ("{{ messages[0].content }}{{ messages[0].content }}", "repeats 'red'"),
        ("{{ messages[0].content | upper }}", "changes 'red'"),
        ("{{ messages[0].content[:9] }}", "drops 'red'|changes 'red'"),
        ("{{ messages[0].content | replace('a', 'an') | length }}", "drops 'red'"),
        ("{{ messages[0].content | title }}", "changes 'red'"),
    ],
)
def test_templates_that_do_not_keep_the_text(template, message):
    with pytest.raises(RequestError, match=message):
        locate_with(made("byte level", template), "the red stone and a river", "red")


def test_a_template_that_refuses_the_prompt():
    template = "{{ raise_exception('no system role') }}"
    with pytest.raises(RequestError, match="no system role"):
        locate_with(made("byte level", template), "the red stone", "red")


def test_a_tokenizer_without_offsets():
    class Slow:
        is_fast = False

    with pytest.raises(RequestError, match="Slow does not map tokens to characters"):
        locate_with(Slow(), "the red stone", "red")


def test_private_characters_of_the_prompt_are_no_trouble():
    tokenizer = made("byte level")
    prompt = "\ue000 the red\ue001 stone \ue002"
    check(tokenizer, prompt, "red", locate_with(tokenizer, prompt, "red"))


def test_long_prompts_have_the_encoders_ids():
    tokenizer = made("reference")
    prompt = "the blue river is far, " * 1500 + "the red stone is here"
    found = locate_with(tokenizer, prompt, "red stone")
    assert list(found.ids) == PromptEncoder(tokenizer, True).ids(prompt)
    assert found.spans[0].text.strip() == "red stone"
