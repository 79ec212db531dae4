"""The marks of a thought, read off what a chat template makes of a message that has one."""

import pytest
from jinja2 import Template

from pytest_llmprobe.models.rendered_thought import rendered_mark
from pytest_llmprobe.models.thought_marks import Mark

HEADS = {"prompt": "{% if add %}<|bot|>%s{% endif %}", "user": "<|user|>{{ m.content }}<|end|>"}
ANSWERS = {
    "tags": "<|bot|>{% if m.reasoning_content %}<muse>{{ m.reasoning_content }}</muse>{% endif %}"
    "{{ m.content }}<|end|>",
    "a prompt's own words": "<|bot|>{% if m.thinking %}{{ m.thinking }}\nSo I say:\n{% endif %}"
    "{{ m.content }}<|end|>",
    "channels": "{% if m.reasoning %}<|bot|><|in|>{{ m.reasoning }}<|end|>{% endif %}"
    "<|bot|><|out|>{{ m.content }}<|end|>",
    "always a thought": "<|bot|><|o|>muse<|s|>{{ m.reasoning_content }}<|c|>muse<|s|>"
    "<|o|>say<|s|>{{ m.content }}<|end|>",
    "a thought's text is dropped": "<|bot|>{{ m.content }}<|end|>",
    "a thought alone": "<|bot|>{{ m.reasoning_content }}",
    "the same words, no mark": "<|bot|>{{ m.reasoning_content }}{{ m.content }}",
    "fails": "{{ m.nothing.at_all }}",
}


def render_of(name, prompt=""):
    template = Template(
        "{% for m in messages %}{% if m.role == 'user' %}"
        + HEADS["user"]
        + "{% else %}"
        + ANSWERS[name]
        + "{% endif %}{% endfor %}"
        + HEADS["prompt"].replace("%s", prompt)
    )
    return lambda messages, answer_follows: template.render(messages=messages, add=answer_follows)


@pytest.mark.parametrize(
    ("name", "prompt", "mark"),
    [
        ("tags", "", Mark("<muse>", "</muse>")),
        ("tags", "<muse>", Mark("<muse>", "</muse>")),
        ("tags", "<muse>\n\n</muse>\n", Mark("<muse>", "</muse>")),
        ("a prompt's own words", "I muse:\n", Mark("I muse:", "So I say:")),
        ("channels", "", Mark("<|in|>", "<|out|>", channels=True)),
        (
            "always a thought",
            "<|o|>muse<|s|>",
            Mark("<|o|>muse<|s|>", "<|c|>muse<|s|><|o|>say<|s|>", channels=True),
        ),
        ("a thought's text is dropped", "", None),
        ("a thought alone", "", None),
        ("the same words, no mark", "", None),
        ("fails", "", None),
    ],
)
def test_marks_are_read_off_a_message(name, prompt, mark):
    assert rendered_mark(render_of(name, prompt)) == mark


def test_channels_whose_prompt_has_ended_the_thought_keep_their_own_beginning():
    mark = rendered_mark(render_of("channels", "<|in|><|end|><|bot|>"))
    assert mark is not None
    assert mark.open == "<|in|>"
