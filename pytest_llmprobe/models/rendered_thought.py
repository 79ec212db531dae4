"""The marks of thoughts that a chat template writes itself when it is given a message with one."""

from __future__ import annotations

import re

from pytest_llmprobe.models.chat_text import Render
from pytest_llmprobe.models.thought_marks import Mark

KEYS = ("reasoning_content", "reasoning", "thinking")
"""What templates call the thought of an assistant's message."""

_QUESTION, _THOUGHT, _ANSWER = "qQuestionQq", "tThoughtTt", "aAnswerAa"
_TAG = re.compile(r"<[^<>]+>|\[[^\[\]]+\]")
_LAST_TAG = re.compile(r"(?:<[^<>]+>[\w:]+)?(?:<[^<>]+>|\[[^\[\]]+\])$")


def rendered_mark(render: Render) -> Mark | None:
    """What a chat template writes around a thought, or None if it writes none.

    Templates build their marks from pieces, so that no text of theirs may name them. A thought is
    closed by what begins an answer where that has a mark of its own, as channels have.
    """
    question = {"role": "user", "content": _QUESTION}
    answer = {"role": "assistant", "content": _ANSWER}
    prompt = _between(render, [question], _QUESTION, None)
    for key in KEYS:
        parts = _parts(render, [question, answer | {key: _THOUGHT}])
        if parts is None:
            continue
        before, closing = parts
        plain = _between(render, [question, answer], _QUESTION, _ANSWER)
        opening = _opening(before, closing, prompt, plain)
        if not opening:
            return None
        begins = plain.removeprefix(prompt).strip() if plain.startswith(prompt) else ""
        if begins and closing.endswith(begins) and closing != begins:
            return Mark(opening, begins, channels=True)
        return Mark(opening, closing, channels=len(_TAG.findall(closing)) > 1)
    return None


def _parts(render: Render, messages: list[dict[str, str]]) -> tuple[str, str] | None:
    """What stands between question and thought, and between thought and answer."""
    before = _between(render, messages, _QUESTION, _THOUGHT)
    after = _between(render, messages, _THOUGHT, _ANSWER)
    return (before, after.strip()) if after.strip() else None


def _opening(before: str, closing: str, prompt: str, plain: str) -> str:
    """What begins a thought, of all that stands between a question and it."""
    own = prompt.removeprefix(before).strip() if prompt.startswith(before) else ""
    if own and closing not in own and not closing.startswith(own):
        # Words of a prompt that the thought of a message is kept without.
        return own
    last = _LAST_TAG.search(before.rstrip())
    return _without_head(before, [prompt, plain]) or (last[0] if last else "")


def _between(render: Render, messages: list[dict[str, str]], first: str, last: str | None) -> str:
    """The text from one word to another or, with None, to the beginning of an answer."""
    try:
        text = render([dict(message) for message in messages], last is None)
    except Exception:  # a template is a program; one that knows no thoughts may fail in any way
        return ""
    _, found, rest = text.rpartition(first)
    if last is None:
        return rest if found else ""
    middle, found_too, _ = rest.partition(last)
    return middle if found and found_too else ""


def _without_head(text: str, heads: list[str]) -> str:
    """What a text has after the head that it shares with another one: whole tags of it."""
    rests = []
    for head in filter(None, heads):
        shared = 0
        while shared < min(len(head), len(text)) and head[shared] == text[shared]:
            shared += 1
        for tag in _TAG.finditer(text):
            if tag.start() < shared < tag.end():
                shared = tag.start()
        rests.append(text[shared:].strip() if shared else "")
    return max(rests, key=len, default="")
