"""A text's thought and its answer: what counts as a mark, and what only speaks of one."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmprobe.models.chat_template import render
from pytest_llmprobe.models.thinking import is_quiet, template_arguments
from pytest_llmprobe.models.thought_marks import (
    HARMONY,
    KNOWN,
    Mark,
    closed_by,
    marks_in,
    opened_by,
)
from pytest_llmprobe.models.thoughts import Scanner, part

THOUGHT = "Perhaps 41?\nNo."


@pytest.mark.parametrize("mark", KNOWN, ids=lambda mark: mark.open)
def test_every_known_mark(mark):
    assert part(f"{mark.open}{THOUGHT}{mark.close}42") == (THOUGHT, "42")
    assert part(f"\n {mark.open}\n{THOUGHT}\n{mark.close}\n\n42\n") == (THOUGHT, "42\n")
    assert part(f"{mark.open}\n\n{mark.close}\n\n42") == (None, "42")
    assert part(f"{mark.open}{THOUGHT}") == (THOUGHT, "")
    assert part(f"{THOUGHT}\n{mark.close}\n42") == (THOUGHT, "42")


PARTED = {
    "nested": ("<think>a<think>b</think>c</think>X", "a<think>b</think>c", "X"),
    "nested by half": ("<think>a <think> b </think> X", "a <think> b", "X"),
    "several": ("<think>a</think><think>b</think>X", "a\n\nb", "X"),
    "the topic": (
        "<think>They ask of <think>.</think>The tag <think> opens a thought.",
        "They ask of <think>.",
        "The tag <think> opens a thought.",
    ),
    "the topic, quoted": (
        "<think>`</think>` and \"</think>\" and '</think>'?</think>X",
        "`</think>` and \"</think>\" and '</think>'?",
        "X",
    ),
    "an end after a quotation": ('<think>say "42"</think>"42"', 'say "42"', '"42"'),
    "half a mark": ("<think>a</thi", "a</thi", ""),
    "no thought": ("42", None, "42"),
    "white space": ("  42 ", None, "  42 "),
    "nothing": ("", None, ""),
    "half an opening mark": ("<thi", None, "<thi"),
    "later": ("42 <think>a</think>", None, "42 <think>a</think>"),
    "in JSON": ('{"a": "<think>b</think>"}', None, '{"a": "<think>b</think>"}'),
    "an end in JSON": ('{"a": "b</think>c"}', None, '{"a": "b</think>c"}'),
    "an end as a word": ("The tag </think> ends it.", None, "The tag </think> ends it."),
    "an end as the last word": ("It ends with </think>", None, "It ends with </think>"),
    "a pair in a listing": ("So:\n<think>\na\n</think>", None, "So:\n<think>\na\n</think>"),
    "an end alone": ("</think>42", None, "42"),
    "channels": (
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>X",
        "a",
        "X",
    ),
    "the last channel alone": ("<|channel|>final<|message|>X", None, "X"),
}


@pytest.mark.parametrize("name", PARTED)
def test_what_is_thought_and_what_is_said(name):
    text, *expected = PARTED[name]
    assert part(text) == tuple(expected)


PIECES = ["<think>", "</think>", "[THINK]", "[/THINK]", "a", " ", "\n", "`", '"', "'", "<", "/"]


@given(st.lists(st.sampled_from([*PIECES, HARMONY.open, HARMONY.close]), max_size=14), st.data())
def test_pieces_of_a_text_say_what_the_whole_says(pieces, data):
    text = "".join(pieces)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)) | {0, len(text)})
    whole, cut = Scanner(KNOWN), Scanner(KNOWN)
    whole.feed(text)
    for start, end in pairwise(cuts):
        cut.feed(text[start:end])
    found = []
    for scanner in (whole, cut):
        scanner.finish()
        found.append((scanner.spans, scanner.answer_at, scanner.unfinished))
    assert found[0] == found[1]


@given(st.text("ab \n<>/think", max_size=20), st.text("ab \n{}", min_size=1, max_size=20))
def test_a_plain_thought_is_taken_off_whatever_it_says(thought, answer):
    if "think>" not in thought:
        found = part(f"<think>{thought}</think>{answer}")
        assert found == (thought.strip() or None, answer.lstrip())


@pytest.mark.parametrize(
    "text",
    [
        "<think>" + "x" * 10_000_000 + "</think>42",
        "<think>" + "x\n" * 5_000_000,
        "<think>" + "`</think>`" * 300_000 + "</think>42",
        "<think>" * 300_000,
        "</think>" * 300_000,
        "x </think> y\n" * 300_000,
    ],
    ids=["one line", "lines without an end", "quoted ends", "openings", "ends", "ends as words"],
)
def test_long_texts_take_time_in_proportion(text):
    def seconds(text):
        start = time.process_time()
        part(text)
        return time.process_time() - start

    assert seconds(text) < 0.5 + 40 * seconds(text[: len(text) // 10])


def test_marks_are_found_in_tokens_and_templates():
    assert marks_in("", ["<think>", "</think>"]) == (Mark("<think>", "</think>"),)
    assert HARMONY in marks_in(
        "'<|start|>assistant<|channel|>analysis<|message|>' + m.thinking", []
    )
    assert marks_in("", ["<my:thought>", "</my:thought>"]) == (
        Mark("<my:thought>", "</my:thought>"),
    )
    assert marks_in("{% set reasoning = m.reasoning %}<b>", ["<|im_start|>", "[INST]"]) == ()


def test_words_that_anybody_may_say_are_marks_only_where_a_template_names_their_end():
    (mark,) = marks_in("{{ m.reasoning }}\n[BEGIN FINAL RESPONSE]\n", [])
    assert mark.open == "Here are my reasoning steps:"
    assert part("Here are my reasoning steps: I look.\n7").answer.endswith("7")


MODE = "{% if thinking_mode in ['disabled', 'enabled'] %}.{% endif %}"
UNASKED = (
    "{% if reasoning_effort is not defined %}{% set reasoning_effort = 'no_think' %}{% endif %}"
    "{% if reasoning_effort == 'high' %}.{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "off", "on"),
    [
        (MODE, {"thinking_mode": "disabled"}, {"thinking_mode": "enabled"}),
        (UNASKED, {"reasoning_effort": "no_think"}, {"reasoning_effort": "high"}),
        ("{{ reasoning_effort }}", {"reasoning_effort": "low"}, {}),
        ("{{ reasoning_effort }}{{ 'none' }}", {"reasoning_effort": "none"}, {}),
        ("{{ enable_thinking }}", {"enable_thinking": False}, {"enable_thinking": True}),
        ("{{ thinking }}{{ thinking_effort == 'none' }}", {"thinking": False}, {"thinking": True}),
    ],
)
def test_a_template_is_told_in_its_own_words(template, off, on):
    assert template_arguments(template, None, {}) == off
    assert template_arguments(template, "on", {}) == on


def test_what_a_prompt_ends_with():
    seed = "<seed:bos>assistant\n<seed:think><seed:cot_budget_reflect>"
    assert opened_by(seed, KNOWN) == Mark("<seed:think>", "</seed:think>")
    assert opened_by("what is <think> in <b>?<|assistant|>", KNOWN) is None
    assert opened_by("<|assistant|><think>\n", KNOWN) == Mark("<think>", "</think>")
    assert opened_by("what does <think> mean?", KNOWN) is None
    assert closed_by("<think>\n\n</think>\n\n", KNOWN)


SAID = """{%- set ns = namespace(thinks=true) -%}
{%- for m in messages if m.role in ('system', 'user') -%}
{%- if '/no_think' in m.content %}{% set ns.thinks = false %}{% elif "/think" in m.content %}
{%- set ns.thinks = true %}{% endif %}{%- endfor -%}
{%- for m in messages %}<{{ m.role }}>{{ m.content.replace('/no_think', '').replace('/think', '') }}
{%- endfor %}<assistant><think>{% if not ns.thinks %}</think>{% endif %}"""


@pytest.mark.parametrize("before", [[], [{"role": "system", "content": "Be kind."}]])
def test_a_switch_that_is_a_word_is_said_by_the_system(before):
    messages = [*before, {"role": "user", "content": "Why?"}]
    given = {choice: template_arguments(SAID, choice, {}) for choice in ("on", "off", "auto", None)}
    assert given == {
        "on": {"/think": True},
        "off": {"/no_think": True},
        "auto": {},
        None: {"/no_think": True},
    }
    made = {choice: render(SAID, messages, {}, arguments=its) for choice, its in given.items()}
    system = "<system>Be kind. " if before else "<system>"
    assert made["off"] == made[None] == f"{system}<user>Why?<assistant><think></think>"
    assert made["on"] == f"{system}<user>Why?<assistant><think>"
    assert made["auto"] == f"{system.strip() if before else ''}<user>Why?<assistant><think>"
    assert messages == [*before, {"role": "user", "content": "Why?"}]
    assert is_quiet(given["off"])
    assert not is_quiet(given["on"])


def test_a_template_that_writes_the_word_itself_has_an_argument_for_it():
    written = "{{ messages[0].content }}{% if not enable_thinking %}/nothink{% endif %}"
    assert template_arguments(written, "off", {}) == {"enable_thinking": False}
    only_written = "{{ messages[0].content + '/no_think' }}"
    assert template_arguments(only_written, "off", {}) == {}
