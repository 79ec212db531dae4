"""Chat templates that write the date of today: left out, pinned, or an error, never kept."""

from datetime import date

import pytest
from transformers import AutoTokenizer

from pytest_llmprobe.case import RawPrompt
from pytest_llmprobe.errors import RequestError
from pytest_llmprobe.models.date_lines import render_prompt
from pytest_llmprobe.models.prompts import PromptEncoder
from pytest_llmprobe.models.registry import REFERENCE

BODY = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}<|assistant|>"
LLAMA_32 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{{- "<|system|>\n\n" }}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}"""
LLAMA_31 = LLAMA_32.replace("strftime_now is defined", "false")
SMOLLM_3 = """{%- set today = strftime_now("%d %B %Y") -%}
{{- "<|system|>\n## Metadata\n\nKnowledge Cutoff Date: June 2025\n" }}
{{- "Today Date: " ~ today ~ "\n" ~ "Reasoning Mode: /no_think\n\n" }}"""
GPT_OSS = """{%- macro system() -%}
{{ "You are a model.\nKnowledge cutoff: 2024-06\nCurrent date: " + strftime_now("%Y-%m-%d") }}
{{- "\n\nReasoning: low\n" }}{%- endmacro -%}
{{- "<|system|>" + system() }}"""
GRANITE = """{%- set text = "Knowledge Cutoff Date: April 2024.\nToday's Date: " %}
{{- "<|system|>" + text + strftime_now("%B %d, %Y") + ".\nYou are Granite.\n" }}"""
MISTRAL = """{%- set today = strftime_now("%Y-%m-%d") %}
{{- "<|system|>You know much. The current date is " + today + ".\n\nBe kind.\n" }}"""
ONLY_IF_GIVEN = """{% if date_string is defined %}Today Date: {{ date_string }}\n{% endif %}"""
KNOWN = {
    "llama 3.2": (LLAMA_32, "<s><|system|>\n\n", "26 Jul 2024"),
    "llama 3.1": (LLAMA_31, "<s><|system|>\n\n", "26 Jul 2024"),
    "smollm 3": (
        SMOLLM_3,
        "<|system|>\n## Metadata\n\nReasoning Mode: /no_think\n\n",
        "26 July 2024",
    ),
    "gpt-oss": (GPT_OSS, "<|system|>You are a model.\nReasoning: low\n", "2024-07-26"),
    "granite": (GRANITE, "<|system|>You are Granite.\n", "July 26, 2024"),
}
QUESTION = "Today Date: 01 Jan 2020\nCutting Knowledge Date: keep me\nsay one two"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(REFERENCE)


@pytest.fixture
def templated(tokenizer, monkeypatch):
    def use(template):
        monkeypatch.setattr(tokenizer, "chat_template", template)
        return tokenizer

    return use


def rendered(tokenizer):
    options = {"tokenize": False, "add_generation_prompt": True}
    return tokenizer.apply_chat_template([{"role": "user", "content": QUESTION}], **options)


@pytest.mark.parametrize("name", KNOWN)
def test_the_templates_date_lines_are_left_out_and_the_users_stay(templated, name):
    template, head, _ = KNOWN[name]
    tokenizer = templated(template + BODY)
    bos = tokenizer.bos_token
    prompt = render_prompt(tokenizer, QUESTION)
    assert prompt.text == f"{head}<|user|>{QUESTION}\n<|assistant|>".replace("<s>", bos)
    assert list(prompt.ids) == tokenizer(prompt.text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", [*KNOWN, "mistral"])
def test_a_pinned_date_is_in_the_templates_own_form_and_nothing_else_changes(templated, name):
    template, _, pinned = KNOWN.get(name, (MISTRAL, "", "2024-07-26"))
    tokenizer = templated(template + BODY)
    forms = {"%d %b %Y", "%d %B %Y", "%Y-%m-%d", "%B %d, %Y"}
    expected = rendered(tokenizer)
    for form in forms:
        expected = expected.replace(date.today().strftime(form), pinned)
    text = render_prompt(tokenizer, QUESTION, "pin").text
    assert text == expected
    assert text.count(pinned) == 1


@pytest.mark.parametrize(
    ("template", "line"),
    [
        (MISTRAL, "The current date is DATE."),
        ("Now: {{ strftime_now('%H:%M') }}\n", "Now: DATE"),
        ("Note, Today Date: {{ strftime_now('%d %b %Y') }}\n", "Note, Today Date: DATE"),
        (f"{LLAMA_32}It is {{{{ date_string }}}}, a fine day.\n", "It is DATE, a fine day."),
    ],
)
def test_an_unknown_form_is_an_error_that_shows_the_line(templated, template, line):
    with pytest.raises(RequestError, match="unknown form") as error:
        render_prompt(templated(template + BODY), QUESTION)
    assert line in str(error.value)
    assert "pin" in str(error.value)


@pytest.mark.parametrize(
    "template",
    [
        "{% if strftime_now('%Y')|int > 2000 %}modern\n{% endif %}",
        "{{ strftime_now('%Y')[:2] }} is the century\n",
        "{{ strftime_now('%B')|upper }}\n",
    ],
)
@pytest.mark.parametrize("dates", ["leave out", "pin"])
def test_a_template_that_computes_with_the_date_is_an_error(templated, template, dates):
    with pytest.raises(RequestError, match="computes with the date"):
        render_prompt(templated(template + BODY), QUESTION, dates)


def test_without_a_date_the_prompt_is_the_engines(tokenizer):
    for dates in ("leave out", "pin"):
        prompt = render_prompt(tokenizer, QUESTION, dates)
        assert list(prompt.ids) == PromptEncoder(tokenizer, True).ids(QUESTION)
        assert prompt.text == rendered(tokenizer)


def test_without_a_template_the_prompt_is_the_text(templated):
    tokenizer = templated(None)
    prompt = render_prompt(tokenizer, QUESTION)
    assert prompt == RawPrompt(QUESTION, tuple(PromptEncoder(tokenizer, False).ids(QUESTION)))


def test_a_date_that_only_a_caller_could_give_is_not_there(templated):
    prompt = render_prompt(templated(ONLY_IF_GIVEN + BODY), "hello")
    assert prompt.text == "<|user|>hello\n<|assistant|>"


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{% if %}"])
def test_a_template_that_refuses_is_an_error(templated, template):
    with pytest.raises(RequestError, match="refuses"):
        render_prompt(templated(template), QUESTION)


def test_text_that_holds_the_mark_is_an_error(tokenizer):
    with pytest.raises(RequestError, match="mark dates"):
        render_prompt(tokenizer, "say \ue0f2")
