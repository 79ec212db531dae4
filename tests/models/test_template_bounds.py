"""Chat templates within bounds: rendered as transformers does, and none can take all memory."""

import json
import shutil
from datetime import datetime
from resource import RUSAGE_SELF, getrusage

import pytest
from test_chat_text import CHATML, tokenizer_of
from transformers.utils.chat_template_utils import render_jinja_template

from pytest_llmprobe import load_model
from pytest_llmprobe.errors import ModelError, RequestError, TemplateTooCostlyError
from pytest_llmprobe.models.chat_template import render, variables
from pytest_llmprobe.models.prompts import PromptEncoder
from pytest_llmprobe.models.registry import REFERENCE, ModelSpec
from pytest_llmprobe.models.template_budget import LONGEST
from pytest_llmprobe.models.template_facts import template_facts

LLAMA = """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|system|>\\nToday Date: " + date_string + "\\n\\n" + system_message + "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|' + message['role'] + '|>\\n' + message['content'] | trim + '<|eot|>' }}
    {%- elif message.role == 'tool' %}{{- '<|tool|>' ~ message.content | tojson }}
    {%- else %}{%- set call = message.tool_calls[0].function %}
        {{- '{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson(indent=2) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}"""
MISTRAL = """{%- set loop_messages = messages %}
{%- set ns = namespace(index=0, odd=[]) %}{{- bos_token }}
{%- for message in loop_messages | rejectattr("role", "equalto", "system") | list %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("roles must alternate: %s" % message.role) }}{%- endif %}
    {%- if message.role == "user" %}{{- "[INST] " + message["content"] + "[/INST]" }}
    {%- elif loop.last %}{{- " " + message.content }}
    {%- else %}{{- " " ~ message.content ~ eos_token }}{%- endif %}
    {%- set ns.index = ns.index + 1 %}{%- set ns.odd = ns.odd + [message.content | length] %}
{%- endfor %}{{ "{}:{:>3}".format(ns.index, ns.odd | join("+")) }}"""
QWEN = """{%- set ns = namespace(tool=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.tool and message.role == "user" and not message.content.startswith('<tool>') %}
        {%- set ns.tool = false %}{%- set ns.last = index %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "assistant" and message.content is string %}
        {%- set thought = '' %}{%- set content = message.content %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<|im_start|>assistant\\n<think>' + thought.strip('\\n') + '</think>' + content }}
        {%- else %}{{- '<|im_start|>assistant\\n' + content }}{%- endif %}
    {%- else %}{{- '<|im_start|>' + message.role + '\\n' ~ message.content }}{%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think></think>' }}{%- endif %}
{%- endif %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{ raise_exception('System role not supported') }}{% endif %}
{% macro said(content) %}{% if content is string %}{{ content | trim }}{% else %}
{%- for part in content %}{% if part.type == 'text' %}
{{ part.text | replace('\\n', ' ') }}{% endif %}
{%- endfor %}{% endif %}{% endmacro %}
{% for message in messages %}
{% set role = {'assistant': 'model'}.get(message.role, message.role) %}
{{ '<start_of_turn>' + role + '\\n' + said(message.content) + '<end_of_turn>\\n' }}
{%- generation %}{{ loop.index | string | indent(2, true) }}{% endgeneration %}
{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
MANY = """{% for m in messages | sort(attribute='role') %}{{ m.role.upper().center(9, '-') }}
{{ "%-6s|%05.1f" | format(m.role, loop.index) }}{{ m | dictsort | first | join(sep ~ '/') }}
{{ m.content.replace('a', 'ab', 1) if m.content is string else m.content | map(attribute='text')
| list }}{{ [1, 2.5] | sum | round(1) }}{{ m.items() | list | tojson }}{{ loop.cycle('x', 'y') }}
{{ (m.role * 2)[::-1] }}{{ dict(m, a=1) | length }}{{ 'b' in m.role }}{{ {'k': m.role} }}
{% endfor %}
{% call(x) say(2) %}<{{ x }}>{% endcall %}{% macro say(n) %}{{ caller(n) }}{% endmacro %}
{{ range(3) | select('odd') | list }}{{ messages | map('length') | max }}{{ 7 // 2 ** 2 % 5 }}
{% for role, group in messages | groupby('role') %}{{ role }}{{ group | count }}{% endfor %}
{{ 'a,b'.split(',') | unique | reverse | list | string | escape }}{{ "1".join(['a', 'b']) }}"""
TEMPLATES = {
    "chatml": CHATML,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "qwen": QWEN,
    "gemma": GEMMA,
    "many": MANY,
    "reference": (REFERENCE / "chat_template.jinja").read_text(encoding="utf-8"),
}
USER = {"role": "user", "content": 'What is it?\n\n 1 < 2 & "x" é😀 '}
ANSWER = {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nA thing. "}
PARTS = {"role": "user", "content": [{"type": "text", "text": "Hi\nthere"}]}
CALL = {"name": "f", "arguments": {"a": [1, None, "é"]}}
CHATS = {
    "one": [USER],
    "system": [{"role": "system", "content": "Be kind."}, USER],
    "turns": [USER, ANSWER, USER],
    "answered": [USER, ANSWER],
    "parts": [PARTS],
    "tools": [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [{"function": CALL}]},
        {"role": "tool", "content": "12"},
    ],
    "thought": [USER, {"role": "assistant", "content": "Yes.", "reasoning": "Hm."}, USER],
}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def outcome(function):
    try:
        return function()
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_prompt_is_that_of_transformers(template, chat):
    messages = CHATS[chat]
    for given in ({}, {"enable_thinking": False, "date_string": "1 May"}):
        for follows in (True, False):
            theirs = outcome(
                lambda given=given, follows=follows: render_jinja_template(
                    [[{k: v for k, v in m.items() if v is not None} for m in messages]],
                    chat_template=TEMPLATES[template],
                    add_generation_prompt=follows,
                    **SPECIAL,
                    **given,
                )[0][0]
            )
            ours = outcome(
                lambda given=given, follows=follows: render(
                    TEMPLATES[template],
                    messages,
                    SPECIAL,
                    answer_follows=follows,
                    arguments={"strftime_now": datetime.now().strftime, **given},
                )
            )
            assert ours == theirs


BIG = "{% set a = 'x' * 1000000 %}"
GROWN = "{% set ns = namespace(v=['lol']) %}{% for i in range(60) %}{% set ns.v = "
BOMBS = [
    "{{ 'x' * 10**9 }}",
    "{{ [0] * 10**9 }}",
    "{{ 10 ** 1000000000 }}",
    "{% set ns = namespace(v=3) %}{% for i in range(60) %}{% set ns.v = ns.v * ns.v %}{% endfor %}",
    "{{ 'x' | center(10**9) }}",
    "{{ 'x'.ljust(10**9) }}",
    "{{ '7'.zfill(10**9) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 10**9) }}",
    "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (10**9, 1) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ 'x\ny' | indent(10**9) }}",
    "{{ [[1]] | tojson(indent=10**9) }}",
    "{{ 1.5 | round(10**9, 'ceil') }}",
    "{% filter center(10**9) %}x{% endfilter %}",
    BIG + "{{ a | replace('x', a) }}",
    BIG + "{{ a.replace('x', a) }}",
    BIG + "{{ a | join(a) }}",
    BIG + "{{ a.join(range(99999) | map('string')) }}",
    BIG + "{{ range(99999) | list | tojson(separators=(a, a)) }}",
    BIG + "{{ range(99999) | map('replace', '1', a) | list }}",
    BIG + "{% for i in range(99) %}{{ a }}{% endfor %}",
    BIG
    + "{% macro f() %}{% for i in range(99) %}{{ a }}{% endfor %}{% endmacro %}{{ f() | length }}",
    BIG + "{{ ([a] * 99999) | sort }}",
    GROWN + "[ns.v, ns.v] %}{% endfor %}{{ ns.v }}",
    GROWN + "{'a': ns.v, 'b': ns.v} %}{% endfor %}{{ ns.v | tojson }}",
    GROWN + "ns.v + ns.v %}{% endfor %}",
    GROWN + "ns.v ~ ns.v %}{% endfor %}",
    GROWN.replace("set ns.v = ", "set ns.v %}{{ ns.v }}{{ ns.v }}{% endset %}{% endfor %}"),
    "{% macro f(n) %}{% if n %}{{ f(n - 1, varargs, varargs) }}{% else %}"
    "{{ varargs == varargs[:] }}{% endif %}{% endmacro %}{{ f(60, 1, 2) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) if j > 99999 %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}" + "long text " * 1000 + "{% endfor %}",
    "{{ ([range(9999) | list] * 99) | sum(start=[]) }}",
    "{{ (1).to_bytes(10**9) }}",
    "{{ 'x'.encode().ljust(10**9) }}",
    "{{ 'x'.expandtabs(10**9) }}",
    "{{ dict.fromkeys(range(99999), 1) }}",
    "x" * (LONGEST + 1),
]


@pytest.mark.parametrize("template", BOMBS, ids=lambda template: template[-50:])
def test_a_template_that_would_take_all_is_refused_before_it_does(template):
    before = getrusage(RUSAGE_SELF).ru_maxrss  # KB on Linux
    with pytest.raises(TemplateTooCostlyError, match=r"^the chat template .*\S$"):
        render(template, [USER], {})
    assert getrusage(RUSAGE_SELF).ru_maxrss - before < 150_000


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ namespace(_x=1) }}",
        "{{ messages.append(1) }}",
        "{{ lipsum() }}",
        "{{ 'x' | batch(10**9, 'y') | list }}",
        "{{ messages | pprint }}",
        "{% include 'x' %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_what_a_template_may_not_reach_is_no_prompt(template):
    with pytest.raises(RequestError, match="the chat template refuses this prompt"):
        PromptEncoder(tokenizer_of(template), True).text([USER])


def test_a_long_conversation_is_within_the_bounds():
    messages = [USER, ANSWER] * 1000
    for name, template in TEMPLATES.items():
        if name not in ("many", "mistral"):
            assert len(render(template, messages, SPECIAL)) > 20_000
    longest = [{"role": "user", "content": "abcdefghij" * 400_000}]
    assert len(render(QWEN, longest, SPECIAL)) > 4_000_000


def test_a_rendering_that_was_refused_leaves_nothing_behind():
    for _ in range(2):
        with pytest.raises(TemplateTooCostlyError):
            render(BOMBS[0], [USER], {})
        assert render("{{ messages[0].role }}", [USER], {}) == "user"
    with pytest.raises(
        TemplateTooCostlyError, match="131,073 characters, and 131,072 are the most"
    ):
        variables("x" * (LONGEST + 1))


@pytest.mark.parametrize(
    "bomb", [BOMBS[0], "{% if messages | length > 1 %}{{ 'x' * 10**9 }}{% endif %}"]
)
def test_such_a_model_is_refused_by_name_before_its_weights(bomb, tmp_path):
    folder = tmp_path / "bomb"
    shutil.copytree(REFERENCE, folder, ignore=shutil.ignore_patterns("*.safetensors", "unlearned"))
    (folder / "chat_template.jinja").write_text(bomb)
    (folder / "model.safetensors").write_bytes(  # none of its weights
        (2).to_bytes(8, "little") + json.dumps({}).encode()
    )
    with pytest.raises(ModelError, match=r"bomb' cannot be asked: the chat template makes"):
        load_model(str(folder))


def test_a_prompt_alone_can_be_too_costly():
    bomb = CHATML + "{% if 'boom' in messages[0].content %}{{ 'x' * 10**9 }}{% endif %}"
    tokenizer = tokenizer_of(bomb)
    template_facts(ModelSpec("m", "m"), tokenizer)
    encoder = PromptEncoder(tokenizer, True)
    assert encoder.text([USER])
    with pytest.raises(RequestError, match="makes more than"):
        encoder.text([{"role": "user", "content": "boom"}])
