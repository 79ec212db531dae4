"""Prompts by chat templates as they are: odd, damaged, or unwilling to leave an answer open."""

import pytest
from some_tokenizers import byte_level
from transformers import PreTrainedTokenizerFast

from pytest_llmprobe.case import RawPrompt
from pytest_llmprobe.errors import ModelError, RequestError
from pytest_llmprobe.models.prompts import PromptEncoder
from pytest_llmprobe.models.registry import ModelSpec
from pytest_llmprobe.models.template_facts import template_facts
from pytest_llmprobe.models.thinking import is_quiet, template_arguments

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRIPPED = CHATML.replace("m.content", "m.content | trim")
PARTS = (
    "{% for m in messages %}[{{ m.role }}]{% for p in m.content %}"
    "{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}"
)
USER = {"role": "user", "content": "What is the capital of France?"}
BEGUN = {"role": "assistant", "content": "It is ("}


def tokenizer_of(template, bos="<s>"):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level(), bos_token=bos, eos_token="<|im_end|>"
    )
    tokenizer.chat_template = template
    return tokenizer


def encoder(template, **arguments):
    return PromptEncoder(tokenizer_of(template), True, arguments)


@pytest.mark.parametrize("template", [CHATML, STRIPPED])
@pytest.mark.parametrize("text", ["It is (", "It is ", "", "{{ 2 }}"])
def test_an_answer_that_is_begun_is_left_open_as_by_transformers(template, text):
    messages = [USER, {"role": "assistant", "content": text}]
    tokenizer = tokenizer_of(template)
    expected = tokenizer.apply_chat_template(messages, tokenize=False, continue_final_message=True)
    assert encoder(template).text(messages) == expected
    assert (
        encoder(template).ids(messages) == tokenizer(expected, add_special_tokens=False).input_ids
    )


def test_a_template_that_closes_every_answer_refuses_one_that_is_begun():
    template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %} so:"
    with pytest.raises(RequestError, match="the last message is the assistant's"):
        encoder(template).text([USER, BEGUN])


def test_a_template_that_wants_parts_gets_them():
    assert encoder(PARTS).text([USER]) == "[user]What is the capital of France?"
    assert encoder(PARTS).text([USER, BEGUN]).endswith("[assistant]It is (")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ messages[0].role }}", "leaves the user's message out"),
        ("{{ messages[0].content + 1 }}", "TypeError: can only concatenate str"),
        ("{{ raise_exception('no such role') }}", "refuses this prompt: no such role"),
        ("{{ messages[7].content }}", "refuses this prompt"),
        ("{% for m in messages %}", "refuses this prompt"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
    ],
)
def test_a_template_that_fails_says_so_in_one_sentence(template, words):
    with pytest.raises(RequestError, match=words) as caught:
        encoder(template).text([USER])
    assert "\n" not in str(caught.value)


def test_a_question_that_a_template_rewrites_is_not_lost():
    assert encoder("{{ messages[0].content | upper }}").text([USER]) == USER["content"].upper()


@pytest.mark.parametrize("prompt", ["<s>a", RawPrompt("<s>a"), RawPrompt("a"), "a"])
@pytest.mark.parametrize("template", [None, "<s>{{ messages[0].content }}"])
def test_bos_comes_once_whatever_the_text_begins_with(prompt, template):
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_of(template)
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", bos)]
    )
    ids = PromptEncoder(tokenizer, template is not None).ids(prompt)
    assert ids[0] == bos
    assert ids[1:] == tokenizer("a", add_special_tokens=False).input_ids


QWEN = CHATML + "{% if enable_thinking is false %}<think>\n\n</think>{% endif %}"
EFFORT = CHATML + "{{ reasoning_effort }}{% if reasoning_effort == 'none' %}!{% endif %}"


@pytest.mark.parametrize(
    ("template", "thinking", "given", "expected"),
    [
        (QWEN, None, {}, {"enable_thinking": False}),
        (QWEN, "off", {"enable_thinking": True}, {"enable_thinking": True}),
        (QWEN, "on", {}, {"enable_thinking": True}),
        (QWEN, "auto", {}, {}),
        (CHATML, "off", {}, {}),
        ("{{ thinking_budget }}", "off", {}, {"thinking_budget": 0}),
        (EFFORT, "off", {}, {"reasoning_effort": "none"}),
        ("{{ reasoning_effort }}", "off", {}, {"reasoning_effort": "low"}),
        (EFFORT, "on", {"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        (None, "off", {}, {}),
    ],
)
def test_the_switch_of_a_template(template, thinking, given, expected):
    found = template_arguments(template, thinking, given)
    assert found == expected
    assert is_quiet(found) == (expected in OFF)


OFF = ({"enable_thinking": False}, {"thinking_budget": 0}, {"reasoning_effort": "none"})


def test_an_argument_that_the_template_does_not_mention_names_those_that_it_does():
    with pytest.raises(ModelError, match=r"did you mean enable_thinking.*knows: enable_thinking$"):
        template_arguments(QWEN, None, {"enable_thinkin": 1})
    with pytest.raises(ModelError, match="no chat template"):
        template_arguments(None, None, {"x": 1})


def test_thinking_cannot_be_switched_on_where_nothing_knows_of_it():
    with pytest.raises(ModelError, match="--llmprobe-thinking on"):
        template_facts(ModelSpec("m", "m", thinking="on"), tokenizer_of(CHATML))


def test_the_end_of_a_turn_is_found_in_the_template():
    tokenizer = tokenizer_of(CHATML)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    _, turn = template_facts(ModelSpec("m", "m"), tokenizer)
    assert turn == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)
    assert template_facts(ModelSpec("m", "m"), tokenizer_of("{{ messages[0].content }}"))[1] == ()


@pytest.mark.parametrize("thought", [["<a>"], "<a>", [1, 2], True, ["", "</a>"]])
def test_marks_that_are_none(thought):
    with pytest.raises(ModelError, match="what begins and what ends a thought"):
        template_facts(ModelSpec("m", "m", thought=thought), tokenizer_of(CHATML))
